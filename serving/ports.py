"""The ports that the service listens on: that of HTTP, and that of gRPC, which workers share."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from core.errors import UserError
from serving.settings import PREFIX, Settings

BACKLOG = 2048  # connections that wait to be accepted
_FREE, _MOST = 1024, 65535  # the first port that any user may listen on, and the last of all


def check_grpc(settings: Settings) -> None:
    """Checks that gRPC is installed, where there is a port for it.

    Raises:
        UserError: it is not.
    """
    if settings.grpc_port and not all(map(find_spec, ("h2", "google.protobuf"))):
        raise UserError(f"{PREFIX}GRPC_PORT is set, which needs gRPC: pip install '.[grpc]'")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on ``host``:``port``.

    Raises:
        UserError: it is in use, or not allowed, or this machine does not have ``host``; the message
            says how to choose another.
    """
    other = _other(port)
    return _bound(host, port, f"PORT={other} (make) or --port {other}", BACKLOG)


def listen_grpc(settings: Settings) -> socket.socket:
    """Returns a socket that listens on the port of gRPC, beside those of other workers.

    The system gives each connection to one of them.

    Raises:
        UserError: as :func:`listen`.
    """
    return _bound(settings.host, settings.grpc_port, _another_grpc(settings), BACKLOG, shared=True)


def _another_grpc(settings: Settings) -> str:
    return f"--grpc-port {_other(settings.grpc_port)} or {PREFIX}GRPC_PORT"


def _bound(
    host: str, port: int, another: str, backlog: int = 0, *, shared: bool = False
) -> socket.socket:
    """Returns a socket of that address, which listens if there is a ``backlog``."""
    try:
        return _bind(host, port, backlog, shared)
    except OSError as error:
        raise UserError(f"cannot listen on {host}: {_why(error, port, another)}") from None


def _bind(host: str, port: int, backlog: int, shared: bool) -> socket.socket:
    version = ipaddress.ip_address(host).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    # With the protocol, by which asyncio knows that what is sent need not wait for more. Where the
    # system has no IPv6, there is no such socket either.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        bound.bind((host, port))
        if backlog:
            bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound


def _why(error: OSError, port: int, another: str) -> str:
    """Returns why ``port`` of an address cannot be bound, and the setting that mends it."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; choose another with {another}"
    if error.errno == errno.EACCES:
        return f"port {port} is not allowed ({error.strerror}); choose another with {another}"
    reason = f"it cannot be used here ({error.strerror})"
    if error.errno == errno.EADDRNOTAVAIL:
        reason = "this machine does not have that address"
    return (
        f"{reason}; choose another with HOST= (make), --host or {PREFIX}HOST: "
        "127.0.0.1 (this machine) or 0.0.0.0 (all its addresses)"
    )


def _other(port: int) -> int:
    """Returns a port to propose instead: the next one that any user may listen on."""
    return port - 1 if port >= _MOST else max(port + 1, _FREE)


@contextmanager
def reserved(settings: Settings) -> Iterator[None]:
    """A context manager: inside, the port of gRPC is this service's.

    Each worker listens there itself, beside the others. What allows that is set once the port is
    bound, or two services could share it.

    Raises:
        UserError: as :func:`listen`.
    """
    if not settings.grpc_port:
        yield
        return
    with _bound(settings.host, settings.grpc_port, _another_grpc(settings)) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
