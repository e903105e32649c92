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


def check_grpc(settings: Settings) -> None:
    """Checks that gRPC is installed, where there is a port for it.

    Raises:
        UserError: it is not.
    """
    if settings.grpc_port and not all(map(find_spec, ("grpc", "google.protobuf"))):
        raise UserError(f"{PREFIX}GRPC_PORT is set, which needs gRPC: pip install '.[grpc]'")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on ``host``:``port``.

    Raises:
        UserError: it is in use, or not allowed; the message says how to choose another.
    """
    return _bound(host, port, f"PORT={port + 1} (make) or --port {port + 1}", backlog=2048)


def _bound(host: str, port: int, another: str, backlog: int = 0) -> socket.socket:
    """Returns a socket of that address, which listens if there is a ``backlog``."""
    version = ipaddress.ip_address(host).version
    bound = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        if backlog:
            bound.listen(backlog)
    except OSError as error:
        bound.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        raise UserError(
            f"cannot listen on {host}: port {port} {reason}; choose another with {another}"
        ) from None
    return bound


@contextmanager
def reserved(settings: Settings) -> Iterator[None]:
    """A context manager: inside, the port of gRPC is this service's.

    Each worker listens there itself, beside the others. What allows that is set once the port is
    bound, or two services could share it.

    Raises:
        UserError: as :func:`listen`.
    """
    port = settings.grpc_port
    if not port:
        yield
        return
    with _bound(settings.host, port, f"--grpc-port {port + 1} or {PREFIX}GRPC_PORT") as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
