"""What connections have in common: each may have its share, and more of it while there is some.

So those that keep much leave enough for the others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Common:
    """Something of which there is so much.

    Attributes:
        most: what all may have together, beside those that have no more than their share.
        share: what each may have in any case.
        taken: what all have.
    """

    most: int
    share: int
    taken: int = 0

    def has_room(self, own: int, size: int = 1) -> bool:
        """Returns whether one that has ``own`` may have ``size`` more; the last may exceed all."""
        return own + size <= self.share or self.taken < self.most
