"""Write what is made from close.proto (`make proto`), and the errors into it; or make an image of it for buf.

Everything that it reads is in the repository or in an installed package, so it needs no network, and the same input
gives the same bytes.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import google.rpc
import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from close_api.errors import STATUSES
from close_api.grpc.statuses import answered_codes, said

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parents[1]
PROTO: Final = "closeflow/close/v1/close.proto"
PACKAGES: Final = ("services/close-api/src/close_api/grpc/generated", "clients/python/src/closeflow_client/generated")
_INCLUDES: Final = (Path(next(iter(google.rpc.__path__))).parents[1], Path(next(iter(grpc_tools.__path__))) / "_proto")
_ERRORS: Final = re.compile(r"(// Errors: begin\n).*?(// Errors: end\n)", re.DOTALL)
_INIT: Final = '"""Made from close.proto by `make proto`; never edited by hand."""\n'


def main() -> None:
    """`generate.py [--into DIRECTORY]`, or `generate.py --image FILE [--of DIRECTORY]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=REPOSITORY, help="write the files below this directory")
    parser.add_argument("--image", type=Path, help="write only a FileDescriptorSet, which buf reads")
    parser.add_argument("--of", type=Path, default=HERE, help="the directory with the proto to make an image of")
    given = parser.parse_args()
    if given.image is not None:
        write_image(given.image, of=given.of)
        return
    proto = given.into / "schemas" / "proto" / PROTO
    proto.parent.mkdir(parents=True, exist_ok=True)
    proto.write_text(with_errors((HERE / PROTO).read_text()))
    for package in PACKAGES:
        write_package(given.into / package, of=given.into / "schemas" / "proto")


def write_image(image: Path, *, of: Path) -> None:
    """What close.proto in the directory `of` and all that it imports say."""
    _compile(of, f"--descriptor_set_out={image}", "--include_imports", "--include_source_info")


def write_package(package: Path, *, of: Path) -> None:
    """The generated modules, flat in one package that imports its own parts relatively: the path in the proto would be
    a package `closeflow`, which is another one of ours."""
    package.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        out = Path(scratch)
        _compile(of, f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}")
        for made in sorted((out / PROTO).parent.iterdir()):
            (package / made.name).write_text(_flat(made.read_text()))
    (package / "__init__.py").write_text(_INIT)
    (package / "close_pb2_grpc.pyi").write_text("\n".join([*_stub_types(_descriptor(of)), ""]))


def with_errors(proto: str) -> str:
    """The proto with the table of errors that the codes of the service give."""
    return _ERRORS.sub(lambda found: found[1] + "".join(_error_lines()) + found[2], proto)


def _error_lines() -> Iterator[str]:
    for code in answered_codes():
        after = STATUSES[code].retry_after_s
        pause = "" if after is None else f" RetryInfo: {after} s, unless it says otherwise."
        text = f"{code.value.upper()} ({STATUSES[code].grpc}): {said(code)}{pause}"
        lines = textwrap.wrap(text, 117, initial_indent="  ", subsequent_indent="      ")
        yield from (f"//{line}\n" for line in lines)


def _compile(of: Path, *options: str) -> None:
    includes = [f"-I{path}" for path in (of, *_INCLUDES)]
    if protoc.main(["protoc", *includes, *options, PROTO]) != 0:  # type: ignore[no-untyped-call]
        raise SystemExit(f"{of / PROTO} was not compiled; mend what is named above")


def _flat(text: str) -> str:
    return text.replace("from closeflow.close.v1 import ", "from . import ")


def _descriptor(of: Path) -> FileDescriptorProto:
    with TemporaryDirectory() as scratch:
        image = Path(scratch) / "image"
        write_image(image, of=of)
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    return next(one for one in files if one.name == PROTO)


def _stub_types(proto: FileDescriptorProto) -> Iterator[str]:
    """What close_pb2_grpc.py is to a type checker: the plugin of protoc leaves that open. The stub on a channel of
    grpc.aio has a type of its own, which is there only for the checker."""
    yield from ("import grpc", "import grpc.aio", "from typing import overload", "", "from . import close_pb2", "")
    for service in proto.service:
        name = f"{service.name}Stub"
        asynchronous = f"{service.name}AsyncStub"
        yield f"class {name}:"
        yield "    @overload"
        yield f"    def __new__(cls, channel: grpc.Channel) -> {name}: ..."
        yield "    @overload"
        yield f"    def __new__(cls, channel: grpc.aio.Channel) -> {asynchronous}: ...  # type: ignore[misc]"
        for in_module, of_class in (("grpc", None), ("grpc.aio", asynchronous)):
            if of_class is not None:
                yield from ("", f"class {of_class}:")
            for method in service.method:
                kind = "".join(
                    "Stream" if one else "Unary" for one in (method.client_streaming, method.server_streaming)
                )
                types = ", ".join(
                    f"close_pb2.{one.rpartition('.')[2]}" for one in (method.input_type, method.output_type)
                )
                yield f"    {method.name}: {in_module}.{kind}MultiCallable[{types}]"


if __name__ == "__main__":
    main()
