"""The picture of a Grad-CAM map: the image, the map, and the one over the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from core.preprocess import Pixels, encode_png, image_of

_SIDE, _GAP, _LINE = 336, 12, 22  # pixels: the longer side of an image, between them, and of text
_STRONGEST = 0.75  # how much of the colour covers the image where the map is 1
# Dark to light, from 0 to 1 in equal steps: read in grey, too.
_COLOURS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32
)


def cam_png(pixels: Pixels, heat: npt.NDArray[np.float32], caption: tuple[str, ...]) -> bytes:
    """Returns a PNG of three pictures in a row, under a caption.

    They are the image as the network gets it, the map, and the image under the colours of the map.

    Args:
        pixels: uint8 (H, W, C).
        heat: float32 (h, w) in [0, 1].
        caption: lines of text.
    """
    image = image_of(pixels).convert("RGB")
    scale = _SIDE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    kind = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    image = image.resize(size, kind)
    smooth = Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)
    share = np.asarray(smooth, dtype=np.float32).clip(0, 1)
    steps = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(share, steps, _COLOURS[:, c]) for c in range(3)], axis=2)
    cover = _STRONGEST * share[..., None]
    mixed = (1 - cover) * np.asarray(image, dtype=np.float32) + cover * colours
    top = _GAP + len(caption) * _LINE
    sheet = Image.new("RGB", (3 * (size[0] + _GAP) + _GAP, top + size[1] + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LINE - 7)
    for place, line in enumerate(caption):
        draw.text((_GAP, _GAP // 2 + place * _LINE), line, "#22272e", font)
    shown = (image, *(Image.fromarray(each.astype(np.uint8)) for each in (colours, mixed)))
    for place, each in enumerate(shown):
        sheet.paste(each, (_GAP + place * (size[0] + _GAP), top))
    return encode_png(sheet)
