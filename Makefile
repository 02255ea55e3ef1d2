# Every target with a "##" comment is shown by `make help`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE := libs/closeflow $(sort $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml))) closectl devstack demo
SOURCES := libs services closectl devstack demo connect migrations tests bench
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install lock format check clean

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

lock: $(STAMP) ## Resolve the requirements again (maintainers; needs uv)
	uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-emit-package closeflow --upgrade \
		-o requirements.lock requirements-dev.in $(addsuffix /pyproject.toml,$(WORKSPACE))

format: $(STAMP) ## Format the sources
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix --quiet $(SOURCES)

check: $(STAMP) ## Lint, types, import contracts
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports

# --- embedded stack (devstack/): PostgreSQL, Kafka, Connect; INSTANCE=name for another one ---
INSTANCE ?= dev
DEVSTACK = @$(BIN)/python -m devstack
.PHONY: up down status logs reset

up: $(STAMP) ## Start PostgreSQL, Kafka and Connect, or what of them does not run (INSTANCE=dev)
	$(DEVSTACK) up --instance $(INSTANCE)

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
		$(BIN)/python -m closeflow.storage.migrate
# --- end of the database ---

clean: ## Remove the virtual environment and the caches (the stack's data stays: make reset)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
