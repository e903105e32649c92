"""UserError, whose message is shown to users, and one-line messages for other exceptions."""

from __future__ import annotations

import difflib
import errno
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

_OURS = (
    "artifact",
    "bench",
    "core",
    "export",
    "models",
    "pocketnets",
    "predict",
    "report",
    "serving",
    "training",
)


class UserError(ValueError):
    """A mistake that the user can correct.

    The message is one line: what was wrong, the value, what is allowed and how to correct it. The
    command line prints it without a traceback and exits with status 1.
    """


def closest(
    name: str, allowed: Iterable[str], *, show: Callable[[str], str] = str, listed: bool = False
) -> str:
    """Returns the names of ``allowed`` nearest to ``name``, as the end of an error message.

    Args:
        name: the unknown name.
        allowed: the known names.
        show: turns a known name into what the user should type.
        listed: names all that are allowed even where some are near.
    """
    names = sorted(allowed)
    lower = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    near = [lower[each] for each in found]
    if near:
        every = f" (there are {', '.join(map(show, names))})" if listed else ""
        return f"did you mean {' or '.join(map(show, near))}{every}?"
    if len(names) > 60 and not listed:
        return f"none of {len(names)} is close"
    return f"there are {', '.join(map(show, names))}"


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """Returns an error for a ``kind`` of unknown ``name``, with the nearest of ``allowed``."""
    return UserError(f"unknown {kind} {name!r}: {closest(name, allowed)}")


@contextmanager
def spelled(names: Mapping[str, str]) -> Iterator[None]:
    """Lets errors for users that are raised inside name options as the caller spells them.

    Args:
        names: flags, such as ``--labels``, with what they are called instead.
    """
    try:
        yield
    except UserError as error:
        flags = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        text = re.sub(rf"(?<![\w-])({flags})(?![\w-])", lambda at: names[at[1]], str(error))
        error.args = (text,)
        raise


def first_line(error: BaseException) -> str:
    """Returns the first line of the exception's message, or its class name if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_OF_STORAGE = (
    errno.ENOSPC,  # full
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
)


def storage_error(error: BaseException | None) -> str | None:
    """Returns one line for an error of storage, such as a full disk; None for other errors.

    torch raises a RuntimeError when a write fails; the OSError is then its context.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_STORAGE:
            where = f": {os.fsdecode(error.filename)}" if error.filename else ""
            return f"{os.strerror(error.errno)}{where}"
        error = error.__context__ if isinstance(error, RuntimeError) else None
    return None


def in_words(error: BaseException) -> str:
    """Returns one line that describes ``error``, as the reason for a missing result."""
    if isinstance(error, UserError):
        return str(error)
    kind, first = type(error).__name__, first_line(error)
    if first == kind or isinstance(error, AssertionError):  # whose name says no more than "error"
        return first
    return f"{kind}: {first}"


def is_of_library(error: BaseException) -> bool:
    """Returns whether another library raised ``error``, rather than our own code.

    Compiled libraries have no stack frame, so the module of the exception's class counts too.
    """
    kind = type(error).__module__.partition(".")[0]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_in = frames[-1].f_globals["__name__"].partition(".")[0] if frames else ""
    return kind not in _OURS and (kind != "builtins" or raised_in not in _OURS)
