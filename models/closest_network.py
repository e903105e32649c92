"""Guesses which network a file of weights belongs to, if not to the one that was named."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import takewhile

from core import cli
from core.errors import UserError
from core.lazy import resolve
from models.registry import TIMM, TORCHVISION, list_models
from models.saved_weights import SavedWeights, Tensors
from models.weight_places import Place, inside, on_meta, places

_ENOUGH = 0.5  # least fraction of matching keys
_CLASSES = 7  # number of classes that no other dimension equals, so it marks the head
_NEAR = 6  # timm names tried for each hint, of more than a thousand


def closest_network(model: str, saved: SavedWeights, place: Place) -> str:
    """Returns a text that names the network the weights at ``place`` fit, exactly or best.

    Where all keys and shapes are those of ``model``, no other is tried.

    Keys and shapes are compared on the meta device, which takes seconds and is announced. Of timm,
    those networks are tried that a table says are similar, and those whose names are close to
    ``model``, to hints in the file, or to the file's name.

    Args:
        model: the network that the user named.
        saved: content of the file.
        place: location of the weights in it.
    """
    best, share = "", _ENOUGH
    if (likeness := _likeness(model, saved, place)) == 1:
        return "apart from that they are of this network: save them as its state_dict() has them"
    if likeness > share:
        best, share = model, likeness
    words = f"note: looking for a network that {saved.path} fits, which takes some seconds"
    cli.notes().print(words, soft_wrap=True, markup=False)
    for name in _candidates(model, saved, place):
        try:
            likeness = _likeness(name, saved, place)
        except (UserError, NotImplementedError, RuntimeError):  # cannot be built on the meta device
            continue
        if likeness == 1:
            return f"they fit --model {name}"
        if likeness > share:
            best, share = name, likeness
    if best == model:
        return "no other network here comes closer"
    if best:
        return f"the closest is {best}, with {int(100 * share)}% of the tensors alike"
    return "no network here comes close; python -m models lists them, timm/NAME is timm's NAME"


def _candidates(model: str, saved: SavedWeights, place: Place) -> Iterator[str]:
    """Yields names of networks, each once, the likely ones first."""
    own = list_models()
    others = resolve("models.torchvision_nets:list_classifiers")()
    hints = (model, saved.architecture, saved.arguments.get("model"), saved.path.name)
    words = [str(hint).lower().rpartition("/")[2].partition(".")[0] for hint in hints if hint]
    try:
        timms = resolve("models.timm_nets:import_timm")().list_models()
    except UserError:  # timm is optional and not installed
        timms = []
    near = [
        TIMM + name
        for word in words
        for name in difflib.get_close_matches(word, timms, n=_NEAR, cutoff=0.5)
    ]
    likely = [name for word in words for name in (word, f"{TIMM}{word}") if name in (*own, *near)]
    rest = [f"{TORCHVISION}{name}" for name in others if name not in own]
    similar = resolve("models.timm_sketches:similar_networks") if timms else lambda *_: []
    alike = similar(_bare(saved, place), _NEAR)
    names = (*likely, *alike, *near, *own, *rest)
    yield from dict.fromkeys(name for name in names if name != model)


def _bare(saved: SavedWeights, place: Place) -> Tensors:
    """Returns the tensors of a group without the prefix that all of their keys share."""
    tensors = saved.groups[place.group]
    parts = [key.split(".") for key in tensors]
    shared = takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    count = min(len(list(shared)), min(map(len, parts)) - 1)
    return {".".join(key.split(".")[count:]): tensor for key, tensor in tensors.items()}


def _likeness(name: str, saved: SavedWeights, place: Place) -> float:
    """Returns the fraction of tensors equal in key and shape, ignoring the number of classes."""
    expected = on_meta(name, _CLASSES)
    found = places(saved, expected)
    at = max(
        (each for each in found if each.group == place.group), key=found.__getitem__, default=place
    )
    tensors = inside(saved, at)
    keys = {key for key in expected if not key.endswith("num_batches_tracked")}
    theirs = {key for key in tensors if not key.endswith("num_batches_tracked")}
    alike = [
        key
        for key in keys & theirs
        if tensors[key].shape == expected[key].shape
        or (
            expected[key].shape[:1] == (_CLASSES,)
            and tensors[key].shape[1:] == expected[key].shape[1:]
        )
    ]
    return len(alike) / len(keys | theirs)
