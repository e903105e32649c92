"""Exports many networks in parallel, each in its own process and on its share of the cores."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING, Any

from core import cli
from core.cores import usable_cores
from core.errors import UserError, in_words
from core.image_size import Size
from export.build import Options, Outcome, build_artifacts

if TYPE_CHECKING:
    from export.network import WeightsChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One network to export, and how; see :func:`export.build.build_artifacts`."""

    model: str
    data: str | None
    weights: WeightsChoice
    targets: tuple[str, ...]
    options: Options
    size: Size | None = None
    channels: int | None = None
    qat: bool = False
    fold: str | None = None


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, list[Outcome]]]:
    """Runs ``workers`` jobs at a time and yields each with its outcomes when it is done.

    A failing network does not stop the others: it has a single outcome with the reason.

    Raises:
        UserError: fewer than one worker.
    """
    if workers < 1:
        raise UserError(f"workers is {workers}: it must be at least 1")
    shares: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for share in _shares(min(workers, len(jobs))):
        shares.put(share)

    def alone(job: Job) -> list[Outcome]:
        share = shares.get()
        try:
            # A pool of one process, so that a killed process affects no other network.
            with ProcessPoolExecutor(
                1, get_context("spawn"), initializer=_confine, initargs=(share,)
            ) as pool:
                return pool.submit(_run, job).result()
        finally:
            shares.put(share)

    with ThreadPoolExecutor(workers) as threads:
        waiting = {threads.submit(alone, job): job for job in jobs}
        with stopping(waiting):
            for done in as_completed(waiting):
                yield waiting[done], _outcomes(done)


@contextmanager
def stopping(waiting: Collection[Future[Any]]) -> Iterator[None]:
    """Terminates the processes of ``waiting`` if the block is left before they are done.

    Otherwise their pools would wait for them. Ctrl-C reaches all processes, SIGTERM only this one.
    """
    try:
        yield
    finally:
        for future in waiting:
            future.cancel()  # those not yet started
        while not all(future.done() for future in waiting):
            for process in active_children():
                process.terminate()
            time.sleep(0.05)  # one may be about to start


def _run(job: Job) -> list[Outcome]:
    cli.collect_rarely()
    import torch

    from export.network import load_network

    torch.set_num_threads(usable_cores())
    network = load_network(job.model, job.data, job.weights, job.size, job.channels, fold=job.fold)
    return list(build_artifacts(network, job.targets, job.options))


def _outcomes(done: Future[list[Outcome]]) -> list[Outcome]:
    try:
        return done.result()
    except BrokenProcessPool:
        reason = "its process was killed; was there too little memory? Try fewer --workers"
        return [Outcome("all", reason=reason, failed=True)]
    except Exception as error:  # any failure becomes the row of this network
        return [Outcome("all", reason=in_words(error), failed=True)]


def _shares(workers: int) -> list[set[int]]:
    """Returns the cores of each worker, divided evenly."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [set(cores[index::workers]) for index in range(workers)]


def _confine(cores: set[int]) -> None:
    """Restricts this process to ``cores``, so that networks do not compete for a core."""
    if cores:
        os.sched_setaffinity(0, cores)
