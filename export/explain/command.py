"""``pocketnets explain ARTIFACT IMAGE``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from artifact.answering import answering_of
from artifact.artifact import Artifact
from artifact.store import choose
from core import cli
from core.errors import UserError, unknown
from core.files import check_folder, check_is_file, write_whole
from core.image_types import decode_image
from core.preprocess import ImageError, Pixels, Truncated
from report.format import one_line, percent

LIST = "list"  # instead of the name of a layer


@dataclass(frozen=True)
class Explain:
    """Show what in an image speaks for a class, by Grad-CAM of the network of an artifact.

    The picture has the image as the network gets it, the map, and both. The map is of the torch
    network that the artifact was made from, so the weights must be where they were exported.
    """

    artifact: tyro.conf.Positional[Path]
    """Its folder, or that of several, of which the picked one is taken."""
    image: tyro.conf.Positional[Path]
    """An image file."""
    label: str | None = None
    """The class; left out: the most likely one."""
    layer: str | None = None
    """Name of the layer whose feature maps are used; left out: the last one that has at least 4x4
    cells. list: print the names of all, with their cells, and make no picture."""
    out: Path | None = None
    """The PNG file; left out: reports/explain-<image>.png, by its whole name."""
    truncated: Truncated = "refuse"
    """accept: also JPEGs that lack their end."""

    def __call__(self) -> None:
        """Writes the picture, and prints class, score, layer and path; or lists layers."""
        from export.explain.gradcam import grad_cam, layers_of
        from export.explain.picture import cam_png
        from export.rebuild import rebuild

        out = self.picture
        check_folder(out.parent)
        if out.is_dir():
            raise UserError(f"--out {out} is a folder; pass the path of a PNG file")
        artifact = Artifact.load(choose(self.artifact).artifact)
        if self.label is not None and self.label not in artifact.labels:
            raise unknown("label", self.label, artifact.labels)
        pixels = self._pixels(artifact)
        index = None if self.label is None else artifact.labels.index(self.label)
        network = rebuild(artifact)
        if self.layer == LIST:
            for name, (rows, columns) in layers_of(network, pixels).items():
                print(f"{name}: {rows}x{columns} cells")
            return
        found = grad_cam(network, pixels, index, layer=self.layer)
        scores = answering_of(artifact).scores(found.logits)
        first = int(scores.argmax())
        index = first if index is None else index
        said = f"{one_line(artifact.labels[index])}: {percent(float(scores[index]))}"
        if index != first:
            best = one_line(artifact.labels[first])
            said += f" (most likely: {best}, {percent(float(scores[first]))})"
        rows, columns = found.heat.shape
        of = f"{artifact.model} on {artifact.data}, layer {found.layer}, {rows}x{columns} cells"
        write_whole(out, cam_png(pixels, found.heat, (said, of)))
        if artifact.weights == "random":
            _note("its weights are random: the map says nothing of the image")
        elif not found.heat.any():
            _note("nothing in this layer speaks for the class: the map is empty")
        print(f"{said}; {of}")
        print(out)

    @property
    def picture(self) -> Path:
        """Returns the path of the picture: by the image's whole name, as p.gif is not p.png."""
        return self.out or Path("reports", f"explain-{self.image.name}.png")

    def _pixels(self, artifact: Artifact) -> Pixels:
        """Returns the image as the artifact gets it: uint8 (H, W, C)."""
        check_is_file(self.image)
        preprocess = artifact.preprocess
        try:
            image = decode_image(
                self.image.read_bytes(),
                least=preprocess.least,
                truncated=self.truncated,
                mode=preprocess.mode,
            )
        except ImageError as error:
            raise UserError(f"{self.image}: {error}") from None
        return preprocess(image)


def _note(text: str) -> None:
    cli.notes().print(f"note: {text}", soft_wrap=True, markup=False)
