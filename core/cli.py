"""What all command lines share: consoles, and the exit status of a command."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn, TypeVar

from rich.console import Console

from core.errors import UserError, storage_error

T = TypeVar("T")
Hook = Callable[["sys.UnraisableHookArgs"], object]
PROGRAM = "pocketnets"  # the console script; it puts "pocketnets COMMAND" into sys.argv[0]
_TOGETHER_S = (
    2.0  # a second SIGTERM within it belongs to the first, as make sends it to its children
)
_RETRY_S = 0.05  # until a lost signal is sent again
_UNCUT = 10_000  # columns: more than any line has


def program(module: str) -> str:
    """Returns how the command was started, for usage, errors and records.

    Args:
        module: its module, as given to ``python -m``.
    """
    started = sys.argv[0]
    return started if started.startswith(f"{PROGRAM} ") else f"python -m {module}"


def by_name(command: str, otherwise: str) -> str:
    """Returns how a user starts another command: as the console script, if that started this one.

    Args:
        command: the command and its flags, such as ``bench --fresh``.
        otherwise: how it is started without the script, such as ``make bench ARGS=--fresh``.
    """
    return f"{PROGRAM} {command}" if sys.argv[0].startswith(f"{PROGRAM} ") else otherwise


def results() -> Console:
    """Returns the console for results (stdout): tables and paths.

    Its width is ``COLUMNS`` if set, else that of the terminal. Output to a pipe or a file is
    neither cut nor wrapped unless ``COLUMNS`` is set.
    """
    columns = os.environ.get("COLUMNS", "")
    given = columns.isdecimal() and int(columns) > 0
    width = int(columns) if given else None if sys.stdout.isatty() else _UNCUT
    return Console(markup=False, width=width)  # [tensorrt] is the name of an extra, not a style


def notes() -> Console:
    """Returns the console for logs and progress (stderr)."""
    return Console(stderr=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C so that a command removes its temporary files."""


def run(command: Callable[[], int | None]) -> NoReturn:
    """Runs ``command`` and exits with its status.

    The status is 0 on success, 1 with one line on stderr for a :class:`UserError` or a storage
    error, 130 after Ctrl-C and 143 after SIGTERM, with one line too, even where an import made an
    ImportError of them. A later SIGTERM stops what the first one did not.
    """
    before, hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook
    sys.unraisablehook = _retry_lost(hook)
    try:
        sys.exit(command() or 0)
    except BrokenPipeError:  # the reader of stdout closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (KeyboardInterrupt, Exception) as error:
        if (stop := _stop_behind(error)) is not None:
            sys.exit(_say_stopped(stop))
        reason = str(error) if isinstance(error, UserError) else storage_error(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}")
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)
        gc.freeze()  # otherwise the last garbage collection takes 2 s after an export


def _stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Returns the signal's exception, if that is ``error`` or what led to it in an import.

    A compiled module makes an ImportError of whatever is raised while it is imported, and whoever
    imports it says then that a package is missing.
    """
    behind: BaseException | None = error
    imports = True
    while behind is not None:
        if imports and isinstance(behind, KeyboardInterrupt):
            return behind
        imports = isinstance(behind, ImportError)
        behind = behind.__cause__ or behind.__context__
    return None


def _say_stopped(stop: KeyboardInterrupt) -> int:
    """Says in a line which signal stopped the command; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    how = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    print(f"stopped: {stop}" if str(stop) else f"stopped by {how}", file=sys.stderr)
    return 128 + number


@contextmanager
def hangups_ignored() -> Iterator[None]:
    """A context manager, or a decorator: a SIGHUP inside ends nothing.

    It is for a service, which reloads on SIGHUP once it handles it.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def collect_rarely() -> None:
    """Lets Python look for garbage less often, in a command that imports torch.

    The million objects of its imports are no garbage. Looking at them took a quarter of the time
    of the imports.
    """
    gc.set_threshold(10_000, 10, 10)


def _terminate(*_: object) -> None:
    _leave_worker()
    signal.signal(signal.SIGTERM, partial(_terminate_again, time.monotonic()))
    raise Terminated


def _terminate_again(first_s: float, *_: object) -> None:
    _leave_worker()
    if time.monotonic() - first_s >= _TOGETHER_S:
        raise Terminated


def _leave_worker() -> None:
    if multiprocessing.parent_process():  # a worker process, forked with this handler
        os._exit(128 + signal.SIGTERM)


def _retry_lost(before: Hook) -> Hook:
    """Returns a hook that sends a signal again that was raised where nothing can be raised.

    Python prints and drops what is raised in a callback of a weak reference or a finalizer.

    Args:
        before: the hook for anything else.
    """

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        number = signal.SIGINT
        if issubclass(lost.exc_type, Terminated):
            number = signal.SIGTERM
            signal.signal(number, _terminate)
        main = threading.main_thread().ident
        assert main is not None
        again = threading.Timer(_RETRY_S, signal.pthread_kill, (main, number))
        again.daemon = True
        again.start()

    return hook
