"""Addresses that cannot be listened on: the one line names the setting that mends it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from core.errors import UserError
from serving.ports import listen, reserved
from serving.settings import Settings

ABSENT = "192.0.2.1"  # of a block that is kept for documents: no machine has it


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function after which binding fails with a number of ``errno``."""

    def fail_with(number: int) -> None:
        class Failing(socket.socket):
            def bind(self, _: Any) -> None:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr("serving.ports.socket.socket", Failing)

    return fail_with


def told_by(host: str, port: int) -> str:
    with pytest.raises(UserError) as caught:
        listen(host, port)
    return str(caught.value)


def test_an_address_of_another_machine_is_mended_by_the_host() -> None:
    told = told_by(ABSENT, 65535)
    assert told == (
        "cannot listen on 192.0.2.1: this machine does not have that address; choose another with "
        "HOST= (make), --host or POCKETNETS_HOST: 127.0.0.1 (this machine) or 0.0.0.0 "
        "(all its addresses)"
    )
    with pytest.raises(UserError, match="--host or POCKETNETS_HOST") as caught:
        reserved(Settings(host=ABSENT, grpc_port=65535)).__enter__()
    assert "port" not in str(caught.value)


@pytest.mark.parametrize(("port", "other"), [(65535, 65534), (3000, 3001), (80, 1024)])
@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_another_port_is_proposed_where_the_port_is_the_reason(
    failing: Any, number: int, port: int, other: int
) -> None:
    failing(number)
    told = told_by("127.0.0.1", port)
    assert told.startswith(f"cannot listen on 127.0.0.1: port {port} is ")
    assert told.endswith(f"; choose another with PORT={other} (make) or --port {other}")
    with pytest.raises(UserError, match=f"choose another with --grpc-port {other} or POCKETNETS_"):
        reserved(Settings(grpc_port=port)).__enter__()


def test_a_machine_without_ipv6_is_told_in_a_line(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutIpv6(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *rest, **more)

    monkeypatch.setattr("serving.ports.socket.socket", WithoutIpv6)
    told = told_by("::1", 3000)
    assert told.startswith(
        "cannot listen on ::1: it cannot be used here (Address family not supported by protocol); "
        "choose another with HOST="
    )
    with pytest.raises(UserError, match="--host or POCKETNETS_HOST"):
        reserved(Settings(host="::", grpc_port=3000)).__enter__()
    listen("127.0.0.1", port).close()


def test_a_socket_that_cannot_listen_is_closed(
    failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(errno.EADDRINUSE)
    made: list[socket.socket] = []
    kind = socket.socket

    def make(*arguments: Any) -> socket.socket:
        made.append(kind(*arguments))
        return made[-1]

    monkeypatch.setattr("serving.ports.socket.socket", make)
    told_by("127.0.0.1", 3000)
    assert [each.fileno() for each in made] == [-1]


def test_any_other_reason_is_told_as_the_system_does(failing: Any) -> None:
    failing(errno.ENODEV)
    assert "it cannot be used here (No such device); choose another with HOST=" in told_by("::1", 1)
