"""Processes that serve, and the one that watches them.

BentoML's own supervisor takes a second to import what it needs, lets each worker import it again,
and looks after a dead one every ten seconds. uvicorn's, which this is, looks twice a second, and on
SIGHUP starts new workers before it ends the old ones. It stays small, and forks.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import resource
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
import uvicorn._subprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from artifact.opening import open_artifact
from core.errors import UserError
from serving.predictor import the_predictor
from serving.protocol import connection_class
from serving.routes import wrap
from serving.settings import PREFIX, Settings

GRACE_S = 20  # what an unfinished request gets after SIGTERM
_FILES = 200  # what a worker has open beside its connections
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as malloc.h numbers them
_START_S = 60  # what a worker gets to answer: OpenVINO compiles some graphs for 10 s


def supervise(settings: Settings, listening: socket.socket) -> int:
    """Returns the exit status after the last worker ended; serves on ``listening`` until then.

    SIGTERM and SIGINT end it: what was accepted is answered first. SIGHUP replaces the workers,
    each after its successor is ready, which reads the artifact anew.
    """
    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]
    multiprocess.Process = _Worker  # type: ignore[misc]
    _allow_files(settings.max_connections)
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
    supervisor = _Supervisor(config, [listening])
    supervisor.run()
    return int(any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes))


def create() -> Any:
    """Returns the ASGI application of a worker, ready to answer; ends a worker that never will."""
    _give_back_memory()
    try:
        predictor = the_predictor()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(predictor.load)
            from serving.service import Pocketnets, app  # imports BentoML meanwhile

            service = Pocketnets.to_asgi()  # type: ignore[attr-defined]
            loading.result()
        predictor.open()
        if predictor.settings.access_log:  # lines of BentoML's middleware, on stderr
            logging.basicConfig(format="%(asctime)s %(message)s")
            logging.getLogger("bentoml.access").setLevel(logging.INFO)
            return service
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(STARTUP_FAILURE)
    return wrap(service, app.user_middleware)


def _allow_files(connections: int) -> None:
    """Lets this process and its workers have as many files open as ``connections`` need.

    Raises:
        UserError: the system does not.
    """
    needed = connections + _FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(
            f"max_connections is {connections}, but this system lets a process open {hard} files: "
            f"it can be {max(hard - _FILES, 0)} at most (set {PREFIX}MAX_CONNECTIONS, or ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _give_back_memory() -> None:
    """Lets glibc give back what a large image took: images of 49 megapixels left 2.5 GB, now 0.5.

    The thresholds are such that an image of 1080p keeps its place, and takes as long as before.
    bentofile.yaml sets the same by variables, which glibc reads when a process starts.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, 12 << 20)
        set_option(_TRIM_THRESHOLD, 32 << 20)


class _Worker(multiprocess.Process):
    """uvicorn's, whose end is seen while it is asked for its health, not a minute later."""

    def start(self) -> None:
        super().start()
        self.child_conn.close()  # or this process holds the pipe open that the worker leaves


class _Supervisor(Multiprocess):
    """uvicorn's, which says of a worker that failed to start only what that has said."""

    def keep_subprocess_alive(self) -> None:
        log = logging.getLogger("uvicorn.error")
        log.setLevel(logging.CRITICAL)
        try:
            super().keep_subprocess_alive()
        finally:
            log.setLevel(logging.WARNING)

    def handle_hup(self) -> None:
        """Replaces the workers, unless the artifact that is there now is no good."""
        try:
            settings = Settings.from_environment()
            open_artifact(settings.artifact, allow_unverified=settings.allow_unverified)
        except UserError as error:
            print(f"error: {error}; the old workers go on", file=sys.stderr, flush=True)
            return
        super().handle_hup()
