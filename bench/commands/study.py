"""``python -m bench study``: one question of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from models.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question of the papers on this machine; what was measured before is kept."""

    name: tyro.conf.Positional[Literal["ablation"]]
    """ablation: what six variations of resnet14 cost and reach."""
    data: str = "fashion_mnist"
    """fashion_mnist or cifar10."""
    epochs: int = 80
    """Passes over the training images."""
    out: Path = Path("reports")
    """Folder for ablation-<data>.jsonl, .md and .png."""

    def __call__(self) -> None:
        """Trains what was not trained before, and prints the table and where it is."""
        from bench.studies.ablation import chart, markdown, run_ablation

        rows = list(run_ablation(self.data, epochs=self.epochs, out=self.out))
        page = self.out / f"ablation-{self.data}.md"
        write_whole(page.with_suffix(".png"), chart(self.data, rows))
        write_whole(page, markdown(self.data, rows).encode())
        print(page.read_text())
        print(page)
