"""Clients that keep a server busy, and the processes of that server."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psutil

RAW = {"content-type": "image/png"}
PAUSE_S = 0.05  # between two requests of a client, else a crowd takes the CPU from the server
LOOK_S = 0.2  # between two looks for workers, each of which reads the table of all processes


class Crowd:
    """Clients that ask one after the other, each request on a connection of its own.

    They are those of the standard library, which take a fifth of the CPU time of httpx's.

    Attributes:
        outcomes: of each request, when it began, its status or the name of an error, and its body.
    """

    def __init__(self, port: int, image: bytes, path: str, token: str) -> None:
        self.port = port
        self.path = path
        self.headers = {**RAW, "connection": "close", "authorization": f"Bearer {token}"}
        self.image = image
        self.outcomes: list[tuple[float, int | str, Any]] = []
        self.leave = threading.Event()

    def ask(self) -> None:
        """Asks until it is told to leave."""
        while not self.leave.is_set():
            body: Any = None
            began = time.monotonic()
            outcome: int | str
            try:
                outcome, body = self._post()
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
            self.outcomes.append((began, outcome, body))
            time.sleep(PAUSE_S)

    def _post(self) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", self.path, self.image, self.headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def wait_for(self, more: int, seconds: float = 30) -> None:
        """Returns when ``more`` answers have come."""
        count, end = len(self.outcomes) + more, time.monotonic() + seconds
        while len(self.outcomes) < count:
            assert time.monotonic() < end
            time.sleep(0.01)

    @property
    def counts(self) -> Counter[int | str]:
        """Returns how often each outcome came."""
        return Counter(outcome for _, outcome, _ in self.outcomes)


@contextmanager
def crowd(
    port: int, image: bytes, size: int, path: str = "/predict", token: str = ""
) -> Iterator[Crowd]:
    """Yields ``size`` clients at work."""
    crowd = Crowd(port, image, path, token)
    with ThreadPoolExecutor(size) as pool:
        asking = [pool.submit(crowd.ask) for _ in range(size)]
        try:
            yield crowd
        finally:
            crowd.leave.set()
    for each in asking:
        each.result()


def workers(server: Any) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if is_alive(child)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # ended since it was listed
        return False


def wait_until(is_so: Callable[[], bool], every: float = 0.01) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(every)
