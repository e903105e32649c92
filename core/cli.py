"""What every command line of the house shares: consoles, and the end of a user's mistake."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from rich.console import Console

from core.errors import UserError

T = TypeVar("T")
_UNCUT = 10_000  # columns: more than any line has


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


def run(command: Callable[[], int | None]) -> NoReturn:
    """Runs ``command`` and exits with its status: 0, or 1 and one line for a user's mistake."""
    try:
        sys.exit(command() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # else the interpreter's last collection takes 2 s after an export
