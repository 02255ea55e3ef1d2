"""What a user reads when the machine lacks something: one line, what is wrong, how to mend it, exit code 2."""

from pathlib import Path

import pytest

from devstack.errors import EnvironmentLacking
from devstack.fetch import explain_failure
from devstack.preflight import check_disk, postgres_platform

from .conftest import Clone

JAVA_17 = "echo 'openjdk version \"17.0.2\" 2022-01-18' >&2"


@pytest.mark.parametrize(
    ("java", "says"),
    [
        (None, "no Java in PATH: install a JRE 17"),
        ("echo 'openjdk version \"11.0.20\" 2023-07-18' >&2", "is Java 11, Kafka needs 17: install a JRE 17"),
        ("echo 'java version \"1.8.0_392\"' >&2", "is Java 8, Kafka needs 17: install a JRE 17"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "does not run (`java -version` ended with 1)"),
    ],
)
def test_up_says_which_java_it_needs(clone: Clone, java: str | None, says: str) -> None:
    done = clone.run("up", PATH=clone.programs(**({"java": java} if java else {})), JAVA_HOME="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_java_home_goes_before_path(clone: Clone) -> None:
    done = clone.run("up", PATH=clone.programs(java=JAVA_17), JAVA_HOME="/nowhere")
    assert done.returncode == 2
    assert "no Java in JAVA_HOME=/nowhere" in done.stderr


def test_up_says_that_maven_is_missing(clone: Clone) -> None:
    done = clone.run("up", PATH=clone.programs(java=JAVA_17), JAVA_HOME="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no Maven ('mvn') in PATH" in done.stderr
    assert "install it" in done.stderr


def test_up_says_what_maven_could_not_fetch(clone: Clone) -> None:
    maven = (
        "echo '[ERROR] Could not transfer artifact org.apache.kafka:kafka_2.13:jar:9 from/to central: refused'; exit 1"
    )
    done = clone.run("up", PATH=clone.programs(java=JAVA_17, mvn=maven), JAVA_HOME="")
    assert done.returncode == 2
    assert "Maven could not fetch org.apache.kafka:kafka_2.13:jar:9: check the network" in done.stderr


def test_a_failure_of_maven_without_an_artifact_shows_its_last_lines() -> None:
    said = explain_failure(
        "[INFO] fine\nThe JAVA_HOME environment variable is not defined correctly", Path("fetch.log")
    )
    assert said.startswith("Maven failed: check the network")
    assert "The JAVA_HOME environment variable" in said


@pytest.mark.parametrize(
    ("system", "machine", "platform"),
    [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64v8"),
        ("Darwin", "x86_64", "darwin-amd64"),
        ("Darwin", "arm64", "darwin-arm64v8"),
    ],
)
def test_each_supported_platform_has_its_binaries(system: str, machine: str, platform: str) -> None:
    assert postgres_platform(system, machine) == platform


def test_another_platform_is_refused_by_name() -> None:
    with pytest.raises(EnvironmentLacking, match="no PostgreSQL for Windows AMD64"):
        postgres_platform("Windows", "AMD64")


def test_a_nearly_full_disk_is_refused(tmp_path: Path) -> None:
    check_disk(tmp_path, at_least=1)
    with pytest.raises(EnvironmentLacking, match=r"GiB free for .*make room there"):
        check_disk(tmp_path, at_least=2**62)


def test_the_command_line_teaches_itself(clone: Clone) -> None:
    said = clone.run("--help").stdout
    for word in ("up ", "down ", "status ", "logs ", "reset ", "Exit codes:", "--instance other"):
        assert word in said


def test_status_of_an_unknown_instance_says_how_to_make_it(clone: Clone) -> None:
    done = clone.run("status", "--instance", "new")
    assert done.returncode == 3
    assert "make up INSTANCE=new" in done.stdout


def test_an_instance_name_that_is_none_is_refused(clone: Clone) -> None:
    done = clone.run("up", "--instance", "../x")
    assert done.returncode == 1
    assert "is no instance name: use lower-case letters" in done.stderr
