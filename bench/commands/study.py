"""``python -m bench study``: one question of the papers, or of our own."""

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
    "decoding",
    "fused_mbconv",
    "grouped",
    "guidelines",
    "resnet_tweaks",
    "scaling",
    "se",
    "width_resolution",
]

_OPTIONS = ("data", "epochs", "images", "batch", "threads", "seconds", "fresh")
_TAKES = {"ablation": ("data", "epochs"), "decoding": ("images", "seconds")}
_OTHERS_TAKE = ("batch", "threads", "seconds", "fresh")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question on this machine; what was measured of a paper's before is reused."""

    name: tyro.conf.Positional[StudyName]
    """ablation: what six variations of resnet14 cost and reach. guidelines: ShuffleNetV2's G1 to
    G4. resnet_tweaks: ResNet-50 A to D. width_resolution: MobileNetV1's multipliers. scaling:
    EfficientNet's. se: squeeze-and-excitation. grouped: ResNeXt's cardinality. fused_mbconv:
    EfficientNetV2's blocks. decoding: ours, what shrinking large images first saves and changes."""
    data: str | None = None
    """ablation only: fashion_mnist (if left out) or cifar10."""
    epochs: int | None = None
    """ablation only: passes over the training images; 80 if left out."""
    images: Path | None = None
    """decoding only: an image file or a folder of them; photos that libraries ship if left out."""
    batch: int | None = None
    """Of the papers' only: images per call; 1 if left out, 8 on a GPU."""
    threads: int | None = None
    """Of the papers' only: CPU threads inside one call; 1 if left out."""
    seconds: float | None = None
    """Not of ablation: least sum of a candidate's samples."""
    fresh: bool = False
    """Of the papers' only: measure again what was measured before."""
    out: Path = Path("reports")
    """Folder for the rows (.jsonl), the page (.md) and the picture (.png)."""

    def __call__(self) -> None:
        """Measures what was not measured before, and prints the page and where it is."""
        mine = _TAKES.get(self.name, _OTHERS_TAKE)
        values = {name: getattr(self, name) for name in _OPTIONS}
        values["fresh"] = self.fresh or None
        given = {name: value for name, value in values.items() if value is not None}
        if others := [f"--{name}" for name in given if name not in mine]:
            raise UserError(
                f"{', '.join(others)}: no option of the study {self.name}; "
                f"it takes {', '.join(f'--{name}' for name in mine)} and --out"
            )
        if self.name == "ablation":
            page = self._ablation()
        elif self.name == "decoding":
            page = self._decoding()
        else:
            page = self._variants(given)
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

    def _decoding(self) -> Path:
        from bench.studies.decoding import SECONDS, decoding_section
        from bench.studies.page import write_study

        seconds = SECONDS if self.seconds is None else self.seconds
        return write_study(self.name, decoding_section(self.images, seconds=seconds), self.out)

    def _variants(self, options: dict[str, Any]) -> Path:
        from bench.studies.page import study_section, write_study
        from bench.studies.study import find_study, run_study

        found = run_study(self.name, self.out, **options)
        return write_study(self.name, study_section(find_study(self.name), found), self.out)
