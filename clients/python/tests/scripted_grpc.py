"""A gRPC server that does with each call what its script says, behind connections that can be cut."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from closeflow_client.generated import close_pb2 as pb

from .answers import TRACE_ID

SERVICE: Final = pb.DESCRIPTOR.services_by_name["CloseService"]


@dataclass(frozen=True)
class Give:
    """Answer with these messages; `then` comes after them (a stream that breaks)."""

    messages: tuple[Message, ...] = ()
    then: Act | None = None


@dataclass(frozen=True)
class Refuse:
    """End the call with an error; `status` are its details."""

    code: grpc.StatusCode
    text: str = ""
    status: Status | None = None
    raw: bytes | None = None

    def __str__(self) -> str:
        return f"{self.code.name} {self.text}"  # The bytes of its details differ from process to process.


@dataclass(frozen=True)
class Cut:
    """End every connection."""


@dataclass(frozen=True)
class Hang:
    """Say nothing until the client goes away."""


Act = Give | Refuse | Cut | Hang


@dataclass(frozen=True)
class Called:
    """A call as it arrived."""

    method: str
    messages: Sequence[Any]
    metadata: Mapping[str, Any]


def refuse(
    code: str,
    status: grpc.StatusCode,
    *,
    retry_after_s: float | None = None,
    fields: Mapping[str, str] | None = None,
    **metadata: str,
) -> Refuse:
    """An error as close-api writes it."""
    return Refuse(
        status, f"It is {code}.", status_of(code, status, retry_after_s=retry_after_s, fields=fields, **metadata)
    )


def status_of(
    code: str,
    status: grpc.StatusCode,
    *,
    retry_after_s: float | None = None,
    fields: Mapping[str, str] | None = None,
    **metadata: str,
) -> Status:
    """The details of such an error."""
    info = ErrorInfo(reason=code.upper(), domain="closeflow", metadata={"trace_id": TRACE_ID} | metadata)
    details: list[Message] = [info]
    if fields:
        found = [BadRequest.FieldViolation(field=name, description=text) for name, text in fields.items()]
        details.append(BadRequest(field_violations=found))
    if retry_after_s is not None:
        delay = Duration(seconds=int(retry_after_s), nanos=int(retry_after_s % 1 * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    made = Status(code=status.value[0], message=f"It is {code}.")
    for one in details:
        packed = AnyMessage()
        packed.Pack(one)
        made.details.append(packed)
    return made


@dataclass
class ScriptedGrpc:
    """One act for each call, in order; a call beyond the script is UNIMPLEMENTED."""

    script: deque[Act]
    credentials: grpc.ServerCredentials | None = None
    calls: list[Called] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE.full_name, self._methods()),)
        )
        if self.credentials is None:
            self._port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self._port = self._server.add_secure_port("127.0.0.1:0", self.credentials)
        self._server.start()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        scheme = "grpc" if self.credentials is None else "grpcs"
        return f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"

    def cut(self) -> None:
        """End every connection, in the middle of whatever it carries."""
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        self._server.stop(None).wait()

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {name: self._handler(name) for name in SERVICE.methods_by_name}

    def _handler(self, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        request: type[Message] = getattr(pb, f"{name}Request")

        def answer(messages: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            metadata = {key: value for key, value in context.invocation_metadata()}  # noqa: C416 - of tuples of a kind
            self.calls.append(Called(name, list(messages), metadata))
            yield from self._play(self.script.popleft() if self.script else None, context)

        def one(message: Any, context: grpc.ServicerContext) -> Message:
            return next(answer([message], context))

        def stream(message: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            return answer([message], context)

        if name == "ClosePositions":
            return grpc.stream_stream_rpc_method_handler(answer, request.FromString, _bytes)
        if name == "WatchCloseRequest":
            return grpc.unary_stream_rpc_method_handler(stream, request.FromString, _bytes)
        return grpc.unary_unary_rpc_method_handler(one, request.FromString, _bytes)

    def _play(self, act: Act | None, context: grpc.ServicerContext) -> Iterator[Message]:
        match act:
            case Give(messages=messages, then=then):
                yield from messages
                if then is not None:
                    yield from self._play(then, context)
            case Refuse(code=code, text=text):
                _refuse(act, context, code, text)
            case Cut():
                self.cut()
                _until_gone(context)
            case Hang():
                _until_gone(context)
            case None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "beyond the script")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


@contextmanager
def scripted_grpc(*script: Act, credentials: grpc.ServerCredentials | None = None) -> Iterator[ScriptedGrpc]:
    """The server for as long as the block runs; afterwards its script must have been played to its end."""
    server = ScriptedGrpc(deque(script), credentials)
    try:
        yield server
        assert list(server.script) == [], "the client asked less often than the script says"
    finally:
        server.stop()


def _refuse(act: Refuse, context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    raw = act.raw if act.status is None else act.status.SerializeToString()
    trailers: list[tuple[str, str | bytes]] = [("trace-id", TRACE_ID)]
    if raw is not None:
        trailers.append(("grpc-status-details-bin", raw))
    context.set_trailing_metadata(tuple(trailers))
    context.abort(code, text)
    raise AssertionError("abort raises")


def _until_gone(context: grpc.ServicerContext) -> None:
    gone = threading.Event()
    if context.add_callback(gone.set):
        assert gone.wait(30)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
