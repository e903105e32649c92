"""The shared parts of all command lines: consoles, and how a command ends."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from rich.console import Console

from core.errors import UserError, storage_error

T = TypeVar("T")
PROGRAM = "pocketnets"  # the console script; it puts "pocketnets COMMAND" into sys.argv[0]
_UNCUT = 10_000  # columns: more than any line has


def program(module: str) -> str:
    """Returns what usage, errors and records call a command, as it was started.

    Args:
        module: that runs it, as ``python -m`` takes it.
    """
    started = sys.argv[0]
    return started if started.startswith(f"{PROGRAM} ") else f"python -m {module}"


def results() -> Console:
    """Returns the console for results (stdout): tables and paths.

    It is as wide as the terminal, or as ``COLUMNS`` says. Piped without it, nothing is cut or
    wrapped: who reads a pipe has no width.
    """
    columns = os.environ.get("COLUMNS", "")
    given = columns.isdecimal() and int(columns) > 0
    width = int(columns) if given else None if sys.stdout.isatty() else _UNCUT
    return Console(markup=False, width=width)  # [tensorrt] is the name of an extra, not a style


def notes() -> Console:
    """Returns the console for logs and progress (stderr)."""
    return Console(stderr=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that what it began is cleared away."""


def run(command: Callable[[], int | None]) -> NoReturn:
    """Runs ``command`` and exits with its status.

    That is 0, or 1 and one line for a user's mistake or a disk that takes nothing more; of a
    command that is stopped 130 (Ctrl-C) or 143 (SIGTERM), and one line where there is more to say.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(command() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        if str(stop):
            print(f"stopped: {stop}", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
    except BrokenPipeError:  # who read the output has enough of it: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if (reason := storage_error(error)) is None:
            raise
        sys.exit(f"error: {reason}")
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.freeze()  # else the interpreter's last collection takes 2 s after an export


def _terminate(*_: object) -> None:
    if multiprocessing.parent_process():  # a worker process, forked with this handler
        os._exit(128 + signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # make passes on what its group gets as well
    raise Terminated
