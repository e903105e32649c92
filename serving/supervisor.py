"""Starts and supervises worker processes.

BentoML's supervisor takes a second for its imports, which each worker repeats, and checks for dead
workers every ten seconds. This one is based on uvicorn's, which checks twice a second and on SIGHUP
starts new workers before it stops the old ones. It imports little, and forks.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NoReturn

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from core.errors import UserError
from serving.ending import begin_the_end
from serving.models import the_models
from serving.protocol import connection_class
from serving.reloading import reload
from serving.routes import wrap
from serving.settings import GRACE_S, PREFIX, Settings
from serving.state import STARTING, Locked, State
from serving.watching import Watch

_FILES = 200  # files that a worker opens besides its connections
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # constants in malloc.h
_START_S = 60  # for a worker to become ready: OpenVINO compiles some graphs for 10 s
_AGAIN_S = 10  # until a worker that could not start is tried again
_LOOK_S = 0.5  # between two looks of a worker whether the supervisor is there


def supervise(settings: Settings, listening: socket.socket, state: State) -> int:
    """Serves on ``listening`` until the last worker has ended; returns the exit status.

    The models are those of ``state``. On SIGTERM and SIGINT it stops after answering all accepted
    requests. On SIGHUP it replaces each worker once its successor, which loads the artifacts again,
    is ready.
    """
    multiprocess.Process = _Worker  # type: ignore[misc]
    _allow_files(settings.max_connections, ports=2 if settings.grpc_port else 1)
    proxies = settings.trusted_proxies
    config = uvicorn.Config(
        "serving.supervisor:create",
        factory=True,
        http=connection_class(settings.max_connections, settings.head_ms / 1e3),
        ws="none",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips="*" if "*" in proxies else list(proxies),
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=_START_S,
    )
    supervisor = _Supervisor(config, [listening], state)
    if settings.watch:
        supervisor.watch = Watch(settings, state)
    try:
        supervisor.run()
    except BaseException:  # no worker stays behind
        supervisor.terminate_all()
        supervisor.join_all()
        raise
    return int(any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes))


def create() -> Any:
    """Returns the ASGI application of a worker, ready to serve; exits the worker on failure."""
    _give_back_memory()
    try:
        models = the_models()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(models.load)
            from serving.service import Pocketnets, app  # imports BentoML meanwhile

            service = Pocketnets.to_asgi()  # type: ignore[attr-defined]
            loading.result()
        models.open()
        for reference, why in models.failed.items():
            print(f"error: {why}; {reference} is not taken", file=sys.stderr, flush=True)
        if (state := State.from_environment()) is not None:
            state.start()
        if models.settings.access_log == "1":  # lines of BentoML's middleware, on stderr
            logging.basicConfig(format="%(asctime)s %(message)s")
            logging.getLogger("bentoml.access").setLevel(logging.INFO)
            return service
    except UserError as error:
        _fail_to_start(error)
    return wrap(service, app.user_middleware)


def _fail_to_start(error: UserError) -> NoReturn:
    """Ends this worker, and the service with it, unless others answer: then it is tried again."""
    state = State.from_environment()
    others = [] if state is None else [each for each in state.reports() if each.pid != os.getpid()]
    if all(each.revision == STARTING for each in others):
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(STARTUP_FAILURE)
    print(
        f"error: {error}; the other workers go on, and another start is tried in {_AGAIN_S} s",
        file=sys.stderr,
        flush=True,
    )
    assert state is not None
    state.leave()
    for number in (signal.SIGTERM, signal.SIGINT):  # the end of the service waits for no sleep
        signal.signal(number, signal.SIG_DFL)
    time.sleep(_AGAIN_S)
    sys.exit(1)


def _allow_files(connections: int, ports: int) -> None:
    """Raises the limit of open files of this process and its workers: ``connections`` a port.

    Raises:
        UserError: the system does not allow it.
    """
    needed = ports * connections + _FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(
            f"max_connections is {connections}, but this system lets a process open {hard} files: "
            f"it can be {max(hard - _FILES, 0) // ports} at most "
            f"(set {PREFIX}MAX_CONNECTIONS, or ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _give_back_memory() -> None:
    """Makes glibc return the memory of large images: after images of 49 megapixels, 0.5 GB remain
    allocated instead of 2.5 GB.

    The thresholds are above the size of a 1080p image, whose speed is unchanged.
    serving/bentofile.yaml sets the same by environment variables, which glibc reads when a process
    starts.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, 12 << 20)
        set_option(_TRIM_THRESHOLD, 32 << 20)


class _Server(uvicorn.Server):
    """uvicorn's server, which tells others when it begins to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        begin_the_end()
        await super().shutdown(sockets)


class _Worker(multiprocess.Process):
    """uvicorn's worker, forked from here instead of started with all imports to do again.

    Its end is noticed at once during a health check, not a minute later. The supervisor makes its
    workers by the name ``Process`` in its module; tests/serving/test_uvicorn.py holds uvicorn to
    that.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=self._run, args=(sockets,))  # type: ignore[assignment]

    def _run(self, sockets: list[socket.socket]) -> None:
        threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
        with suppress(KeyboardInterrupt):  # before the server handles it; the supervisor does too
            self.target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        """Returns the server of this worker."""
        if self._server is None:
            self._server = _Server(self.config)
        return self._server

    def start(self) -> None:
        super().start()
        self.child_conn.close()  # otherwise this process keeps the worker's end of the pipe open


def _end_after(supervisor: int) -> None:
    """Ends this worker once its supervisor is gone, as after SIGKILL; requests are answered."""
    while os.getppid() == supervisor:
        time.sleep(_LOOK_S)
    while True:  # the first may come before the server handles it
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LOOK_S)


class _End(threading.Event):
    """The end of the service: also set once its signal waits in ``queue``, as amid a reload."""

    def __init__(self, queue: list[int]) -> None:
        super().__init__()
        self._queue = queue

    def is_set(self) -> bool:
        return super().is_set() or not {signal.SIGTERM, signal.SIGINT}.isdisjoint(self._queue)


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, without its own message for workers that failed to start."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], state: State) -> None:
        super().__init__(config, sockets)
        self.should_exit = _End(self.signal_queue)
        self._state = state
        self.watch: Watch | None = None

    def keep_subprocess_alive(self) -> None:
        """Replaces dead workers and looks at the repository; it is called twice a second."""
        log = logging.getLogger("uvicorn.error")
        log.setLevel(logging.CRITICAL)
        try:
            super().keep_subprocess_alive()
        finally:
            log.setLevel(logging.WARNING)
        if self.watch is not None and not self.should_exit.is_set():
            self.watch.look()

    def handle_signals(self) -> None:
        """Reloads once for all SIGHUPs that have come: those of a reload lead to one more."""
        while self.signal_queue.count(signal.SIGHUP) > 1:  # in place: the queue grows at any time
            self.signal_queue.remove(signal.SIGHUP)
        super().handle_signals()

    def handle_hup(self) -> None:
        """Replaces the workers, unless the service is to end.

        If a model is broken, they stay, and take what else changed.
        """
        if self.should_exit.is_set():
            return
        try:
            if not reload(Settings.from_environment(), self._state, self.should_exit.is_set):
                return
        except UserError as error:
            print(f"error: {error}; the old workers go on", file=sys.stderr, flush=True)
            return
        except Locked:  # a worker changes the list: at the next look
            self.signal_queue.append(signal.SIGHUP)
            return
        super().handle_hup()
