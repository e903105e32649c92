"""The upper bound of a server's throughput: the same work without HTTP.

Decodes, resizes and classifies the same files as the server, in one process per core, each with one
single-threaded call after the other. Processes are used as threads would wait for the interpreter
lock.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from artifact.artifact import Artifact
from artifact.golden import check_golden
from artifact.records import Logits
from artifact.runtimes.base import Runtime, load_runtime
from bench.load.loops import RAMP
from core.cores import usable_cores
from core.errors import UserError, first_line
from core.preprocess import decode


def answer(artifact: Artifact, runtime: Runtime, file: bytes) -> Logits:
    """Returns the logits, float32 (1, C), of an encoded image: a server's work without HTTP."""
    image = decode(file, least=artifact.preprocess.least, mode=artifact.preprocess.mode)
    return runtime(artifact.preprocess(image)[np.newaxis])


class Limit:
    """A context manager with processes that classify without HTTP, idle until :meth:`throughput`.

    Args:
        folder: folder of the artifact.
        runtime: name of the runtime.
        images: name of a set to its encoded images.
        processes: number of processes; None for the number of usable cores.
    """

    def __init__(
        self,
        folder: Path,
        runtime: str,
        images: Mapping[str, Sequence[bytes]],
        processes: int | None = None,
    ) -> None:
        # Not forked: a process with a loaded runtime and its threads cannot be copied safely.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes or usable_cores()):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, folder, runtime, dict(images)), daemon=True
            )
            self._pipes.append(mine)
            self._processes.append((process, theirs))

    def __enter__(self) -> Limit:
        for process, theirs in self._processes:
            process.start()
            theirs.close()  # so that the end of the process closes the pipe
        try:
            self._receive()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()  # which ends the process
        for process, _theirs in self._processes:
            process.join(5)
            process.kill()

    def throughput(self, name: str, seconds: float) -> float:
        """Measures the images per second of set ``name`` for ``seconds``.

        As in :func:`bench.load.loops.closed_loop`, the first tenth is not counted.
        """
        for pipe in self._pipes:
            pipe.send((name, seconds))
        return sum(self._receive())

    def _receive(self) -> list[float]:
        found = []
        for pipe in self._pipes:
            try:
                reply = pipe.recv()
            except EOFError:
                reply = "a process ended"
            if isinstance(reply, str):
                raise UserError(f"the in-process limit cannot be measured: {reply}")
            found.append(float(reply))
        return found


def _work(pipe: Connection, folder: Path, name: str, images: dict[str, list[bytes]]) -> None:
    """Replies to each (set, seconds) from ``pipe`` with images per second, until it is closed."""
    try:
        artifact = Artifact.load(folder)
        with load_runtime(name, artifact, threads=1) as runtime:
            check_golden(runtime, artifact)
            for files in images.values():
                answer(artifact, runtime, files[0])
            pipe.send(0.0)
            while True:
                chosen, seconds = pipe.recv()
                pipe.send(_rate(artifact, runtime, images[chosen], seconds))
    except (EOFError, KeyboardInterrupt):
        pass  # the parent closed the pipe, or Ctrl-C
    except Exception as error:  # of a runtime or a decoder; the parent reports it
        pipe.send(first_line(error))


def _rate(artifact: Artifact, runtime: Runtime, files: Sequence[bytes], seconds: float) -> float:
    """Returns images per second: the number of complete calls, at least one, over their time."""
    endless = itertools.cycle(files)
    now = begun = time.perf_counter()
    while now < begun + RAMP * seconds:
        answer(artifact, runtime, next(endless))
        now = time.perf_counter()
    start, count = now, 0
    while now < begun + seconds or not count:
        answer(artifact, runtime, next(endless))
        now, count = time.perf_counter(), count + 1
    return count / (now - start)
