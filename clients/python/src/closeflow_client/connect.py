"""The transport for an address."""

from __future__ import annotations

from closeflow_client.address import Address, Tls
from closeflow_client.rest.transport import AsyncRestTransport, RestTransport
from closeflow_client.transport import AsyncTransport, Transport


class GrpcMissing(ImportError):
    """The address is one of gRPC, and the packages for it are not installed."""

    def __init__(self) -> None:
        super().__init__("for a grpc:// address install closeflow-client[grpc]")


def open_transport(address: Address, tls: Tls) -> Transport:
    """For threads. Raises ValueError for TLS files without TLS, OSError for files that cannot be read, GrpcMissing."""
    _check(address, tls)
    if not address.over_grpc:
        return RestTransport(address, tls)
    try:
        from closeflow_client.grpc.transport import GrpcTransport
    except ModuleNotFoundError as error:
        raise GrpcMissing from error
    return GrpcTransport(address, tls)


def open_async_transport(address: Address, tls: Tls) -> AsyncTransport:
    """For one event loop. Raises what `open_transport` does."""
    _check(address, tls)
    if not address.over_grpc:
        return AsyncRestTransport(address, tls)
    try:
        from closeflow_client.grpc.async_transport import AsyncGrpcTransport
    except ModuleNotFoundError as error:
        raise GrpcMissing from error
    return AsyncGrpcTransport(address, tls)


def _check(address: Address, tls: Tls) -> None:
    if tls.given and not address.encrypted:
        raise ValueError("files for TLS are of no use with http:// and grpc://; use https:// or grpcs://")
    if tls.key_file is not None and tls.certificate_file is None:
        raise ValueError("key_file without certificate_file shows nothing to the server; give both")
