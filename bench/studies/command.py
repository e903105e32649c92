"""``python -m bench study``: runs a study of a paper, or one of our own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from bench.studies.registry import STUDIES
from core.errors import UserError, closest
from core.lazy import resolve

_NAMES = "; ".join(f"{spec.name}: {spec.summary}" for spec in STUDIES.values())


@dataclass(frozen=True, kw_only=True)
class Study:
    """Run a study on this machine; earlier measurements of a paper's study are reused."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME", help=_NAMES)]
    batch: int | None = None
    """Studies of papers only: batch size; 1 if left out, 8 on a GPU."""
    threads: int | None = None
    """Studies of papers only: CPU threads inside one call; 1 if left out."""
    seconds: float | None = None
    """Not for ablation: least total time of a candidate's samples; servers: length of a turn."""
    fresh: bool = False
    """Studies of papers, and rewrites: measure again instead of reusing earlier measurements."""
    data: str | None = None
    """ablation only: fashion_mnist (if left out), cifar10, or a folder of images."""
    epochs: int | None = None
    """ablation only: number of epochs; 80 if left out."""
    images: Path | None = None
    """decoding only: an image file or a folder of them; photos that libraries ship if left out."""
    artifact: Path | None = None
    """servers only: folder of the artifact; if left out, the one that bench pick chose."""
    rounds: int | None = None
    """servers only: turns of each server."""
    out: Path = Path("reports")
    """Folder for the rows (.jsonl), the page (.md) and the picture (.png)."""

    def __call__(self) -> None:
        """Runs the study, and prints its page and the page's path."""
        if self.name not in STUDIES:
            near = closest(self.name, STUDIES, listed=True)
            raise UserError(f"unknown study {self.name!r}: {near}")
        spec = STUDIES[self.name]
        flags = [field.name for field in fields(self) if field.name not in ("name", "out")]
        values = {flag: getattr(self, flag) for flag in flags}
        given = {k: v for k, v in values.items() if v is not None and v is not False}
        if others := [f"--{flag}" for flag in given if flag not in spec.flags]:
            raise UserError(
                f"{', '.join(others)}: no option of the study {self.name}; "
                f"it takes {', '.join(f'--{flag}' for flag in spec.flags)} and --out"
            )
        page: Path = resolve(spec.run)(self.name, self.out, **given)
        print(page.read_text())
        print(page)
