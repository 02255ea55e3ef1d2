"""The page of the gRPC calls, from what protoc reads in close.proto, with its comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from docs.site.markup import Section, page, prose, table
from schemas.proto.generate import HERE, PROTO, write_image

Place = tuple[int, ...]
"""Of something in the file, as SourceCodeInfo numbers it."""
_MESSAGES: Final = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_ENUMS: Final = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
_SERVICES: Final = FileDescriptorProto.SERVICE_FIELD_NUMBER
_SYNTAX: Final = FileDescriptorProto.SYNTAX_FIELD_NUMBER
_MEMBERS: Final = 2
"""The methods of a service, the fields of a message and the values of an enum have the same number."""
_ERRORS: Final = re.compile(r"^ *Errors: begin\n.*^ *Errors: end\n", re.DOTALL | re.MULTILINE)


def described_proto() -> FileDescriptorProto:
    """close.proto with the places and comments of what is in it."""
    with TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        write_image(image, of=HERE)
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    return next(one for one in files if one.name == PROTO)


def grpc_page(proto: FileDescriptorProto) -> str:
    """The whole page."""
    said = {tuple(one.path): _without_margin(one.leading_comments) for one in proto.source_code_info.location}
    contents = [Section(service.name, service.name, _named(service.method)) for service in proto.service]
    contents += [Section("messages", "Messages", _named(proto.message_type))]
    contents += [Section("enums", "Enums", _named(proto.enum_type))]
    body = [
        prose(said.get((_SYNTAX,), "")),
        f"<p>For programs: <code>schemas/proto/{PROTO}</code>, package <code>{proto.package}</code>.</p>",
    ]
    for at, service in enumerate(proto.service):
        place = (_SERVICES, at)
        body.append(f'<h2 id="{service.name}">{service.name}</h2>')
        body.append(prose(_ERRORS.sub("", said.get(place, ""))))
        body.append('<p>The reasons are the codes of <a href="errors.html">the errors</a> in upper case.</p>')
        for index, method in enumerate(service.method):
            body.append(_method(method, said.get((*place, _MEMBERS, index), "")))
    body.append('<h2 id="messages">Messages</h2>')
    body += [_message(one, (_MESSAGES, at), said) for at, one in enumerate(proto.message_type)]
    body.append('<h2 id="enums">Enums</h2>')
    body += [_enum(one, (_ENUMS, at), said) for at, one in enumerate(proto.enum_type)]
    return page("grpc.html", "gRPC", "\n".join(body), contents)


def _named(of: Iterable[MethodDescriptorProto | DescriptorProto | EnumDescriptorProto]) -> list[Section]:
    return [Section(one.name, one.name) for one in of]


def _method(method: MethodDescriptorProto, comment: str) -> str:
    given, answer = _type(method.input_type), _type(method.output_type)
    streams = ("stream " if method.client_streaming else "", "stream " if method.server_streaming else "")
    called = f"({streams[0]}{given}) returns ({streams[1]}{answer})"
    return f'<h3 id="{method.name}">{method.name}</h3>\n<p class="muted">{called}</p>\n{prose(comment)}'


def _message(message: DescriptorProto, place: Place, said: Mapping[Place, str]) -> str:
    rows = (
        (
            str(field.number),
            f"<code>{field.name}</code>",
            _field_type(message, field),
            prose(said.get((*place, _MEMBERS, index), "")),
        )
        for index, field in enumerate(message.field)
    )
    fields = table(("no.", "field", "type", "what"), rows) if message.field else "<p>Has no fields.</p>"
    return f'<h3 id="{message.name}">{message.name}</h3>\n{prose(said.get(place, ""))}{fields}'


def _field_type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    named = _type(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {named}"
    if field.proto3_optional:
        return f"optional {named}"
    if field.HasField("oneof_index"):
        return f'{named}<br><span class="muted">one of {escape(message.oneof_decl[field.oneof_index].name)}</span>'
    return named


def _enum(enum: EnumDescriptorProto, place: Place, said: Mapping[Place, str]) -> str:
    rows = (
        (str(value.number), f"<code>{value.name}</code>", prose(said.get((*place, _MEMBERS, index), "")))
        for index, value in enumerate(enum.value)
    )
    return f'<h3 id="{enum.name}">{enum.name}</h3>\n{prose(said.get(place, ""))}{table(("no.", "value", "what"), rows)}'


def _type(name: str) -> str:
    """One of ours with a link; others by their whole name."""
    short = name.rpartition(".")[2]
    ours = name.startswith(".closeflow.")
    return f'<a href="#{short}">{short}</a>' if ours else f"<code>{escape(name.removeprefix('.'))}</code>"


def _without_margin(comment: str) -> str:
    return "".join(line.removeprefix(" ") for line in comment.splitlines(keepends=True))
