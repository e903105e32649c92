"""``python -m bench study``: one question of the papers, or of our own."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import tyro

from artifact.artifact import ARTIFACTS
from artifact.store import read_pick
from core.errors import UserError
from core.files import write_whole

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
    "servers",
    "width_resolution",
]
_TIMING = ("batch", "threads", "seconds", "fresh")
_OPTIONS = {
    "ablation": ("data", "epochs"),
    "decoding": ("images", "seconds"),
    "servers": ("artifact", "rounds", "seconds"),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question on this machine; what was measured of a paper's before is reused."""

    name: tyro.conf.Positional[StudyName]
    """ablation: what six variations of resnet14 cost and reach. guidelines: ShuffleNetV2's G1 to
    G4. resnet_tweaks: ResNet-50 A to D. width_resolution: MobileNetV1's multipliers. scaling:
    EfficientNet's. se: squeeze-and-excitation. grouped: ResNeXt's cardinality. fused_mbconv:
    EfficientNetV2's blocks. Of ours, decoding: what shrinking large images first saves and changes.
    servers: our server beside BentoML's plain endpoint and LitServe."""
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
    batch: int | None = None
    """Of the papers' only: images per call; 1 if left out, 8 on a GPU."""
    threads: int | None = None
    """Of the papers' only: CPU threads inside one call; 1 if left out."""
    seconds: float | None = None
    """Not of ablation: least sum of a candidate's samples; servers: length of a turn."""
    fresh: bool = False
    """Of the papers' only: measure again what was measured before."""
    out: Path = Path("reports")
    """Folder for the rows (.jsonl), the page (.md) and the picture (.png)."""

    def __call__(self) -> None:
        """Measures what was not measured before, and prints the page and where it is."""
        takes = _OPTIONS.get(self.name, _TIMING)
        every = dict.fromkeys((*_TIMING, *chain(*_OPTIONS.values())))
        values = {name: getattr(self, name) for name in every}
        given = {k: v for k, v in values.items() if v is not None and v is not False}
        if others := [f"--{name}" for name in given if name not in takes]:
            raise UserError(
                f"{', '.join(others)}: no option of the study {self.name}; "
                f"it takes {', '.join(f'--{name}' for name in takes)} and --out"
            )
        if self.name == "ablation":
            page = self._ablation()
        elif self.name == "decoding":
            page = self._decoding()
        elif self.name == "servers":
            page = self._servers(given)
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

    def _servers(self, given: dict[str, Any]) -> Path:
        from bench.studies.servers import run_servers

        folder = given.pop("artifact", None)
        if folder is None and (choice := read_pick(ARTIFACTS)) is not None:
            folder = ARTIFACTS / choice.artifact
        if folder is None:
            raise UserError("no artifact to serve: name its folder with --artifact")
        # Its servers end with it, however it is asked to end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return run_servers(folder, self.out, **given)

    def _variants(self, given: dict[str, Any]) -> Path:
        from bench.studies.page import study_section, write_study
        from bench.studies.study import find_study, run_study

        found = run_study(self.name, self.out, **given)
        return write_study(self.name, study_section(find_study(self.name), found), self.out)
