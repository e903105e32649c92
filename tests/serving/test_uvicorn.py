"""What the supervisor overrides in uvicorn must be there, and be used by it as before."""

from __future__ import annotations

import inspect
import socket

import pytest
import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from serving.supervisor import _Server, _Worker

SUPERVISOR = ("init_processes", "restart_all", "keep_subprocess_alive", "handle_ttin")
WORKER = ("start", "target", "server")
USED = {
    multiprocess.Process: (*WORKER, "ping", "terminate", "kill", "join", "exitcode"),
    uvicorn.Server: ("shutdown",),
    Multiprocess: (*SUPERVISOR, "run", "handle_hup", "handle_signals"),
}


@pytest.mark.parametrize("name", SUPERVISOR)
def test_uvicorn_makes_its_workers_by_the_name_that_is_replaced(name: str) -> None:
    method = getattr(Multiprocess, name, None)
    moved = (
        f"uvicorn {uvicorn.__version__} no longer makes workers by multiprocess.Process in "
        f"Multiprocess.{name}: adapt serving/supervisor.py, which replaces that name"
    )
    assert method is not None, moved
    assert "Process" in method.__code__.co_names, moved


@pytest.mark.parametrize("owner", USED, ids=lambda owner: owner.__name__)
def test_uvicorn_has_what_is_overridden(owner: type) -> None:
    missing = [name for name in USED[owner] if not hasattr(owner, name)]
    assert not missing, (
        f"uvicorn {uvicorn.__version__} has no {owner.__name__}.{', '.join(missing)}: adapt "
        "serving/supervisor.py, which overrides or calls it"
    )


def test_uvicorn_makes_a_worker_of_a_configuration_and_sockets() -> None:
    taken = list(inspect.signature(multiprocess.Process).parameters)
    assert taken == ["config", "sockets"], (
        f"uvicorn {uvicorn.__version__} makes workers with {taken}: adapt serving/supervisor.py, "
        "whose workers take a configuration and sockets"
    )


def test_a_worker_is_forked() -> None:
    with socket.socket() as listening:
        worker = _Worker(uvicorn.Config("serving.supervisor:create"), [listening])
    assert type(worker.process).__name__ == "ForkProcess"
    assert type(worker.server) is _Server
    assert worker.server is worker.server
    worker.parent_conn.close()
    worker.child_conn.close()
