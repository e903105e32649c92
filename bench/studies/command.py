"""``python -m bench study``: one question of the papers, or of our own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from bench.studies.registry import STUDIES
from core.errors import UserError
from core.lazy import resolve

_NAMES = "; ".join(f"{spec.name}: {spec.summary}" for spec in STUDIES.values())


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question on this machine; what was measured of a paper's before is reused."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME", help=_NAMES)]
    batch: int | None = None
    """Of the papers' only: images per call; 1 if left out, 8 on a GPU."""
    threads: int | None = None
    """Of the papers' only: CPU threads inside one call; 1 if left out."""
    seconds: float | None = None
    """Not of ablation: least sum of a candidate's samples; servers: length of a turn."""
    fresh: bool = False
    """Of the papers' only: measure again what was measured before."""
    data: str | None = None
    """ablation only: fashion_mnist (if left out) or cifar10."""
    epochs: int | None = None
    """ablation only: passes over the training images; 80 if left out."""
    images: Path | None = None
    """decoding only: an image file or a folder of them; photos that libraries ship if left out."""
    artifact: Path | None = None
    """servers only: folder of the artifact; what bench pick chose if left out."""
    rounds: int | None = None
    """servers only: turns of each server."""
    out: Path = Path("reports")
    """Folder for the rows (.jsonl), the page (.md) and the picture (.png)."""

    def __call__(self) -> None:
        """Measures what was not measured before, and prints the page and where it is."""
        spec = STUDIES.find(self.name)
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
