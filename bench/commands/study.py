"""``python -m bench study``: one question of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from models.errors import UserError
from models.files import write_whole

# Each is a file in bench/studies.
StudyName = Literal[
    "ablation",
    "fused_mbconv",
    "grouped",
    "guidelines",
    "resnet_tweaks",
    "scaling",
    "se",
    "width_resolution",
]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question of the papers on this machine; what was measured before is reused."""

    name: tyro.conf.Positional[StudyName]
    """ablation: what six variations of resnet14 cost and reach. guidelines: ShuffleNetV2's G1 to
    G4. resnet_tweaks: ResNet-50 A to D. width_resolution: MobileNetV1's multipliers. scaling:
    EfficientNet's. se: squeeze-and-excitation. grouped: ResNeXt's cardinality. fused_mbconv:
    EfficientNetV2's blocks."""
    data: str | None = None
    """ablation only: fashion_mnist (if left out) or cifar10."""
    epochs: int | None = None
    """ablation only: passes over the training images; 80 if left out."""
    batch: int | None = None
    """Not of ablation: images per call; 1 if left out, 8 on a GPU."""
    threads: int | None = None
    """Not of ablation: CPU threads inside one call; 1 if left out."""
    seconds: float | None = None
    """Not of ablation: least sum of a candidate's samples."""
    fresh: bool = False
    """Not of ablation: measure again what was measured before."""
    out: Path = Path("reports")
    """Folder for the rows (.jsonl), the page (.md) and the picture (.png)."""

    def __call__(self) -> None:
        """Measures what was not measured before, and prints the page and where it is."""
        training = {"data": self.data, "epochs": self.epochs}
        timing = {"batch": self.batch, "threads": self.threads, "seconds": self.seconds}
        ablation = self.name == "ablation"
        fresh = {"fresh": self.fresh or None}
        mine, others = (training, timing | fresh) if ablation else (timing | fresh, training)
        if given := [f"--{name}" for name, value in others.items() if value is not None]:
            raise UserError(
                f"{', '.join(given)}: no option of the study {self.name}; "
                f"it takes {', '.join(f'--{name}' for name in mine)} and --out"
            )
        page = self._ablation() if ablation else self._variants(timing)
        print(page.read_text())
        print(page)

    def _ablation(self) -> Path:
        from bench.studies.ablation import chart, markdown, run_ablation

        data = self.data or "fashion_mnist"
        epochs = 80 if self.epochs is None else self.epochs
        rows = list(run_ablation(data, epochs=epochs, out=self.out))
        page = self.out / f"ablation-{data}.md"
        write_whole(page.with_suffix(".png"), chart(data, rows))
        return write_whole(page, markdown(data, rows).encode())

    def _variants(self, timing: dict[str, Any]) -> Path:
        from bench.studies.page import study_section, write_study
        from bench.studies.study import find_study, run_study

        options = {name: value for name, value in timing.items() if value is not None}
        found = run_study(self.name, self.out, fresh=self.fresh, **options)
        return write_study(self.name, study_section(find_study(self.name), found), self.out)
