"""A search in several processes, of which any may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING

from bench.tune.plan import Candidate
from bench.tune.search import Search
from core import cli
from core.cores import usable_cores
from core.errors import UserError

if TYPE_CHECKING:
    from training.data import ImageData


def run_in_processes(
    search: Search, candidates: Sequence[Candidate], data: ImageData, trials: int, workers: int
) -> None:
    """Runs :meth:`Search.run` in ``workers`` processes, each on its share of the cores.

    The trial of a process that is killed is tried again by another. If this process ends, they do.

    Raises:
        UserError: one of them failed, with the trials of all kept.
    """
    context = get_context("spawn")
    threads = max(1, usable_cores() // workers)
    processes = [
        context.Process(
            target=_work,
            args=(
                Search(search.folder, seed=search.seed + number),
                list(candidates),
                data,
                trials,
                threads,
            ),
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    waiting = processes[:]
    try:
        while waiting:
            ended = connection.wait([process.sentinel for process in waiting])
            for process in [each for each in waiting if each.sentinel in ended]:
                waiting.remove(process)
                process.join()
                if process.exitcode:
                    search.release(process.pid)
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        search.release(killed=False)
        raise
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise UserError(
            f"{len(failed)} of {workers} processes failed (status {failed[0]}, see above); "
            f"{search.folder} keeps all trials that ended: the same command goes on"
        )


def _work(
    search: Search, candidates: list[Candidate], data: ImageData, trials: int, threads: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends it
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    cli.run(lambda: search.run(candidates, data, trials))


def _end_with_parent() -> None:
    """Ends this process when its parent is killed, or it would train on beside the next command."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
