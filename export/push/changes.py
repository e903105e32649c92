"""What a push changes of what is there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NAMED = 5  # of each kind, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """Names that are new, that changed, and how many are the same.

    Attributes:
        new: names that were not there.
        changed: names whose content is another.
        same: number of those that are as they were.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: int

    @classmethod
    def between(cls, before: Mapping[str, str], after: Mapping[str, str]) -> Changes:
        """Returns what changes, given digests by name; names only in ``before`` are left alone."""
        return cls(
            new=tuple(name for name in after if name not in before),
            changed=tuple(name for name in after if before.get(name, after[name]) != after[name]),
            same=sum(before.get(name) == digest for name, digest in after.items()),
        )

    def __bool__(self) -> bool:
        return bool(self.new or self.changed)

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {kind} ({_some(names)})"
            for kind, names in (("new", self.new), ("changed", self.changed))
            if names
        ]
        return ", ".join([*parts, f"{self.same} as before"])


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
