"""A table of timm's networks by their tensors: which of them a file of weights may belong to.

``python -m models.timm_sketches`` builds every network of the installed timm on the meta device, in
some minutes, and writes the table. A network that is not in it is not guessed, and nothing else
depends on it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch

from core import cli
from core.files import write_whole
from models.registry import TIMM
from models.timm_nets import import_timm
from models.weight_places import on_meta

_FILE = Path(__file__).with_name("timm_sketches.json")
_KEPT, _BYTES = 16, 3  # hashes in a sketch, and the size of one
_CLASSES = 7

Sketch = frozenset[bytes]


def similar_networks(tensors: Mapping[str, torch.Tensor], count: int) -> list[str]:
    """Returns the ``count`` networks of timm that share most tensors with ``tensors``, best first.

    The share is an estimate: of two sets of tensors, the smallest hashes of both together are a
    random sample of them all (a bottom-k sketch; Cohen and Kaplan 2007).

    Args:
        tensors: by key, as the network has them.
        count: most names to return; those that share nothing are left out.
    """
    own = sketch(tensors)
    shares = {name: _share(own, other) for name, other in _table().items()}
    ranked = sorted((name for name in shares if shares[name]), key=lambda name: -shares[name])
    return [TIMM + name for name in ranked[:count]]


def sketch(tensors: Mapping[str, torch.Tensor]) -> Sketch:
    """Returns the smallest hashes of keys and shapes; counters of batches are left out."""
    items = (
        f"{key} {list(tensor.shape)}"
        for key, tensor in tensors.items()
        if not key.endswith("num_batches_tracked")
    )
    hashes = {hashlib.blake2b(item.encode(), digest_size=_BYTES).digest() for item in items}
    return _smallest(hashes)


def _smallest(hashes: Iterable[bytes]) -> Sketch:
    return frozenset(sorted(hashes)[:_KEPT])


def _share(one: Sketch, other: Sketch) -> float:
    """Estimates how many tensors two networks share, of those that one of them has."""
    sample = _smallest(one | other)
    return len(sample & one & other) / max(len(sample), 1)


@cache
def _table() -> dict[str, Sketch]:
    table: dict[str, Sketch] = {}
    for name, text in json.loads(_FILE.read_text()).items():
        data = base64.b64decode(text)
        table[name] = frozenset(
            data[start : start + _BYTES] for start in range(0, len(data), _BYTES)
        )
    return table


def main() -> None:
    """Writes the table of all networks of the timm that is installed."""
    texts = {}
    for name in import_timm().list_models():
        try:
            hashes = sketch(on_meta(f"{TIMM}{name}", _CLASSES))
        except Exception as error:  # whatever its own code raises without data, or without classes
            cli.notes().print(f"{name}: left out ({type(error).__name__})", markup=False)
            continue
        texts[name] = base64.b64encode(b"".join(sorted(hashes))).decode()
    write_whole(_FILE, f"{json.dumps(texts, indent=0, sort_keys=True)}\n".encode())
    print(_FILE)


if __name__ == "__main__":
    cli.run(main)
