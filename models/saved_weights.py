"""Reads files of weights that other programs saved, without executing anything in them.

Files of ``torch.save`` (``.pth``, ``.pt``, ``.pth.tar``, ``.ckpt``) and safetensors are accepted.
The former are read by ``torch.load(weights_only=True)``, which allows only tensors and plain
containers. Checkpoints often hold more (arguments, hyperparameters, NumPy scalars, whole modules),
so each class that torch does not allow is replaced by an inert one, which only stores its state.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError, first_line
from core.files import check_is_file

Tensors = dict[str, torch.Tensor]

_ZIP = b"PK\x03\x04"  # torch recognises archives by it too
_PICKLE = b"\x80"  # first byte of files written by torch before 1.6
_EXPANSION = 8  # weights hardly compress: an archive that unpacks to more is a zip bomb
_SHOWN = 3  # most shards listed in an error
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
_SHARD = re.compile(r'"([^"]+\.(?:safetensors|bin))"')  # in the index of shards
_MAPPINGS = re.compile(r"(collections\.defaultdict|.*\.AttributeDict)")  # classes read as dicts


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedWeights:
    """The content of a file of weights.

    Attributes:
        path: path of the file.
        groups: dictionaries of tensors by their location in the file, such as ``state_dict_ema``;
            ``""`` is the top level.
        arguments: arguments of the training script, if it saved them.
        architecture: the training script's name for the network, if saved.
        classes: names of other classes in the file, which were read as inert objects.
    """

    path: Path
    groups: dict[str, Tensors]
    arguments: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    classes: tuple[str, ...] = ()


class _Inert:
    """Replaces a class named in a file: accepts any arguments and runs nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignores its arguments."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_weights(path: Path) -> SavedWeights:
    """Returns the tensors in a file of weights, and its information on the training script.

    Raises:
        UserError: the file is missing, a folder, of another kind, damaged, a zip bomb, or refers to
            code that would have to be executed.
    """
    check_is_file(path)
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a pointer of Git LFS and not the weights; run git lfs pull")
    if path.name.endswith(".index.json"):
        raise UserError(_index(path))
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((_ZIP, _PICKLE)):
        raise UserError(
            f"{path}: no file of weights; those are what torch.save writes (.pth, .pt, .pth.tar, "
            ".ckpt, .bin) and safetensors (.safetensors); an ONNX graph is given by --onnx FILE"
        )
    return _read_torch(path, _classes_in(path) if head.startswith(_ZIP) else [])


def _index(path: Path) -> str:
    """Returns a text that says how to merge the files of weights that ``path`` is the index of."""
    shards = sorted(set(_SHARD.findall(path.read_text(errors="replace"))))
    load = "torch.load" if any(name.endswith(".bin") for name in shards) else "load_file"
    return (
        f"{path}: an index of weights in {len(shards)} files ({', '.join(shards[:_SHOWN])}"
        f"{', ...' if len(shards) > _SHOWN else ''}); merge them into one by safetensors.torch: "
        f"save_file({{k: v for file in FILES for k, v in {load}(file).items()}}, NEW)"
    )


def _read_safetensors(path: Path) -> SavedWeights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({first_line(error)}); copy it again"
        ) from None
    return SavedWeights(path=path, groups={"": tensors} if tensors else {})


def _read_torch(path: Path, classes: list[str]) -> SavedWeights:
    # Files of torch before 1.6 are not archives and are not scanned; classes they name are refused.
    safe: list[Any] = [argparse.Namespace, *((_stand_in(name), name) for name in classes)]
    try:
        with torch.serialization.safe_globals(safe), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the speed of sparse tensors and old protocols
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of exception on corrupt data
        raise UserError(
            f"{path}: cannot be read as weights, and nothing else in it is executed "
            f"({_reason(error)}); save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    if any(name.startswith("ultralytics.nn") for name in classes):
        raise UserError(
            f"{path}: a network of Ultralytics, which is a pickle of its own code and would have "
            "to be executed; export it there (yolo export format=onnx) and pass --onnx FILE"
        )
    content = saved if isinstance(saved, Mapping) else {}
    arguments = content.get("args")
    architecture = content.get("arch")
    return SavedWeights(
        path=path,
        groups=_groups(saved),
        arguments=vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
        architecture=architecture if isinstance(architecture, str) else None,
        classes=tuple(sorted(classes)),
    )


def _classes_in(path: Path) -> list[str]:
    """Returns the names of all classes and functions in an archive that torch does not allow.

    Raises:
        UserError: the file is of another kind, or would unpack to many times its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: a damaged archive ({first_line(error)}); copy it again") from None
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > _EXPANSION * size:
        raise UserError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,}; weights do not compress so"
        )
    names = {entry.filename.partition("/")[2] or entry.filename for entry in entries}
    if "constants.pkl" in names:
        raise UserError(
            f"{path}: a program of TorchScript; save its weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise UserError(f"{path}: an exported program of torch; pass it by --program FILE")
    if "data.pkl" not in names:
        raise UserError(f"{path}: an archive, but not of torch.save; pass a file of weights")
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # as for torch.load
        raise UserError(f"{path}: damaged ({_reason(error)}); copy it again") from None
    return [name for name in found if name != "argparse.Namespace"]


def _stand_in(name: str) -> Any:
    if _MAPPINGS.fullmatch(name):
        return lambda *_: {}
    return type(name.rpartition(".")[2], (_Inert,), {})


def _reason(error: Exception) -> str:
    """Returns a one-line reason, without torch's advice on how to execute what is in the file."""
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
    reasons = [line.strip() for line in lines if line.strip() and "weights_only" not in line]
    return reasons[0].partition(" Please use")[0] if reasons else type(error).__name__


def _groups(saved: object) -> dict[str, Tensors]:
    """Returns all dictionaries of tensors in a saved object, by their location."""
    groups: dict[str, Tensors] = {}
    seen: set[int] = set()  # an object may be referenced thousands of times
    waiting: deque[tuple[str, object]] = deque([("", saved)])
    while waiting:
        where, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _Inert):
            tensors = _tensors_of_module(value)
        elif isinstance(value, Mapping):
            tensors = {
                modern_key(str(key)): each for key, each in value.items() if _is_tensor(each)
            }
            waiting += [(f"{where}.{key}".lstrip("."), each) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{where}.{at}".lstrip("."), each) for at, each in enumerate(value)]
            continue
        else:
            continue
        if tensors:
            groups[where] = tensors
    return groups


def _tensors_of_module(module: _Inert) -> Tensors:
    """Returns the state dict of a module that was saved as a whole."""
    tensors: Tensors = {}
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", module)]
    while waiting:
        where, layer = waiting.pop()
        if not isinstance(layer, _Inert) or id(layer) in seen:
            continue
        seen.add(id(layer))
        parts = vars(layer)
        passing = parts.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, value in parts.get(kind, {}).items():
                if _is_tensor(value) and name not in passing:
                    tensors[where + name] = value
        waiting += [(f"{where}{name}.", each) for name, each in parts.get("_modules", {}).items()]
    return tensors


def modern_key(key: str) -> str:
    """Returns torchvision's current key for a tensor of its published DenseNet weights.

    Those were saved when module names could contain a dot: ``denselayer1.norm.1.weight``.
    """
    return _DOTTED.sub(r"\1\2", key)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
