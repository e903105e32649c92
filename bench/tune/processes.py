"""A search in several processes, of which any may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
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

    The trial of a process that is killed is tried again by another, a new one if the others have
    ended. If this process ends, they do. A line says how a process failed.

    Raises:
        UserError: fewer than ``trials`` ended, as processes failed; those that ended are kept.
    """
    context = get_context("spawn")
    threads = max(1, usable_cores() // workers)
    processes: list[SpawnProcess] = []
    waiting: list[SpawnProcess] = []
    again = False  # whether a trial may wait that no process takes any more

    def start() -> None:
        own = Search(search.folder, seed=search.seed + len(processes))
        process = context.Process(target=_work, args=(own, list(candidates), data, trials, threads))
        process.start()
        processes.append(process)
        waiting.append(process)

    try:
        for _ in range(workers):
            start()
        while waiting:
            done = connection.wait([process.sentinel for process in waiting])
            for process in [each for each in waiting if each.sentinel in done]:
                waiting.remove(process)
                process.join()
                if process.exitcode:
                    cli.notes().print(
                        f"a process of the search {_failure(process.exitcode)}", soft_wrap=True
                    )
                    again |= search.release(process.pid)
            if again and not waiting:
                again = False
                start()
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        search.release(killed=False)
        raise
    failed = sum(process.exitcode != 0 for process in processes)
    if failed and (ended := len(search.tried())) < trials:
        raise UserError(
            f"{failed} of {len(processes)} processes failed, see above, and {ended} of {trials} "
            f"trials ended, which {search.folder} keeps: the same command goes on"
        )


def _failure(status: int) -> str:
    """Returns in words how a process with exit status ``status``, not 0, ended."""
    number = -status if status < 0 else status - 128  # 143: cli.run left by SIGTERM
    if number <= 0:
        return f"failed with status {status}, see above"
    cause = ", as for want of memory" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({signal.strsignal(number)}{cause})"


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
