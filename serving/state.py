"""The list of models that the processes of a service share: a file that each of them follows.

Whoever changes the list (a worker for an admin request, or the supervisor for a change in the
repository) writes the whole of it under a lock; a worker looks at the file's time of change, and
loads what is new. So no process needs a connection to another, a worker that starts later reads the
same file, and one that was killed leaves nothing half done.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from core.errors import UserError
from core.files import write_whole
from serving.listing import Listing
from serving.settings import PREFIX

FOLDER = PREFIX + "STATE"  # set for the workers, by what starts them

STARTING = -1  # revision of a worker that has not loaded its models yet

_LISTING = TypeAdapter(Listing)


class Locked(Exception):
    """Another process changes the list."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far a worker has followed.

    Attributes:
        pid: its process ID.
        revision: of the list that it serves.
        failed: why models did not come, by ``name:version``.
    """

    pid: int
    revision: int
    failed: dict[str, str] = field(default_factory=dict)


_REPORT = TypeAdapter(Report)


class State:
    """The shared list, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "models.json"
        self._lock = folder / "lock"
        self._workers = folder / "workers"
        self._started = folder / "started"
        self._seen: tuple[int, int] | None = None

    @classmethod
    def from_environment(cls) -> State | None:
        """Returns the state that this process shares with others; None if there is none."""
        folder = os.environ.get(FOLDER)
        return cls(Path(folder)) if folder else None

    def read(self) -> Listing:
        """Returns the list."""
        with self._file.open("rb") as file:
            self._seen = _stamp(os.fstat(file.fileno()))
            return _LISTING.validate_json(file.read())

    def write(self, listing: Listing) -> None:
        """Replaces the list.

        Raises:
            UserError: it cannot be written, as on a full disk; it is what it was.
        """
        try:
            write_whole(self._file, _LISTING.dump_json(listing))
        except OSError as error:
            raise UserError(
                "the list of models cannot be written in the folder of temporary files: "
                f"{error.strerror}"
            ) from None

    @property
    def has_started(self) -> bool:
        """Returns whether a worker has loaded all models at some time."""
        return self._started.exists()

    def start(self) -> None:
        """Says that a worker has loaded all models: from now on a broken one ends no worker."""
        self._started.touch()

    def has_changed(self) -> bool:
        """Returns whether the list is another than the one that was read last."""
        return _stamp(self._file.stat()) != self._seen

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context manager: no other process changes the list inside the block.

        Raises:
            Locked: another one does at the moment.
        """
        with self._lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked from None
            yield

    def report(self, revision: int, failed: dict[str, str]) -> None:
        """Says how far this process has followed."""
        report = Report(os.getpid(), revision, dict(failed))
        write_whole(self._report_of(report.pid), _REPORT.dump_json(report))

    def leave(self) -> None:
        """Says that this process does not follow: nobody waits for it."""
        self._report_of(os.getpid()).unlink(missing_ok=True)

    def _report_of(self, pid: int) -> Path:
        return self._workers / f"{pid}.json"

    def reports(self) -> list[Report]:
        """Returns how far the living workers have followed."""
        found = []
        for path in sorted(self._workers.glob("*.json")):
            if Path(f"/proc/{path.stem}").exists():
                with suppress(FileNotFoundError):  # the worker died just now
                    found.append(_REPORT.validate_json(path.read_bytes()))
            else:
                path.unlink(missing_ok=True)
        return found


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns
