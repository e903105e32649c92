"""An exported program of torch (``.pt2``) in a file of somebody else's; no code in it is executed.

``torch.export.load`` executes what a file holds: pickles (example inputs, some weights and
constants), Python in shapes and guards, and whatever function an operator is called like. So the
archive is written anew from what is known to be harmless, weights as bare numbers, operators of
aten and shapes that are sums and products, and torch loads that. Whatever else there is is left out
where nothing depends on it, such as example inputs and traces of source files, and refused else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from core.errors import UserError, first_line
from core.files import check_is_file
from export.foreign_graph import FLOAT

_EXPANSION = 8  # weights hardly compress: an archive that unpacks to more is a bomb
_MODEL = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version")  # of the format
_SAMPLES = "data/sample_inputs/model.pt"
_LEFT_OUT = re.compile(rf"{_SAMPLES}|\.data/serialization_id|extra/.*")

_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!save\.|from_file\.)\w+\.\w+", re.ASCII)  # not files
_ARITHMETIC = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_\w+",
    re.ASCII,
)
_EXPRESSION = re.compile(  # one of sympy, as its srepr writes it
    r"(?:Symbol\('[su]\d+'(?:, \w+=True)*\)|[-(), ]|\b\d+\b"
    r"|\b(?:Add|Mul|Pow|Integer|Max|Min|Identity|FloorDiv|CleanDiv|CeilDiv|PythonMod|Mod)\b)*",
    re.ASCII,
)
_NAME = re.compile(r"[\w.+-]*", re.ASCII)  # no call can be written in it
_EQUATION = re.compile(r"[\w.>, -]*", re.ASCII)  # of an einsum, likewise
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_REMEDY = (
    "export its graph where it was made (torch.onnx.export(program, dynamo=True)) and pass "
    "--onnx FILE"
)


class _Refused(Exception):
    """What is in the way, in words, and what to do then."""

    def __init__(self, why: str, remedy: str = _REMEDY) -> None:
        super().__init__(f"{why}; {remedy}")


def load_program(path: Path) -> ExportedProgram:
    """Returns the program in a file of ``torch.export.save``, on the CPU.

    Raises:
        UserError: there is no such file, it is none of a program, damaged, or holds what would
            have to be executed.
    """
    check_is_file(path)
    try:
        content = _harmless(path)
    except _Refused as why:
        raise UserError(f"{path}: {why}") from None
    except Exception as error:  # of the archive, of JSON, of a field that is missing
        raise UserError(f"{path}: not a whole exported program ({first_line(error)})") from None
    try:
        return torch.export.load(content)
    except Exception as error:  # torch's have no common class
        version = torch.__version__.partition("+")[0]
        raise UserError(
            f"{path}: torch {version} cannot load this program ({first_line(error)}); {_REMEDY}"
        ) from None


def _harmless(path: Path) -> io.BytesIO:
    """Returns an archive of what is harmless in the one at ``path``."""
    with zipfile.ZipFile(path) as archive:
        entries = {
            entry.filename.partition("/")[2] or entry.filename: entry
            for entry in archive.infolist()
        }
        if "serialized_exported_program.json" in entries:
            raise _Refused("written by torch 2.7 or before, all of it as pickles")
        if _MODEL not in entries:
            raise _Refused("an archive, but not of torch.export.save")
        if sum(entry.file_size for entry in entries.values()) > _EXPANSION * path.stat().st_size:
            raise _Refused("unpacks to many times its size")
        texts = {_MODEL: _model(json.loads(archive.read(entries[_MODEL])))}
        texts |= {name: _config(json.loads(archive.read(entries[name]))) for name in _CONFIGS}
        files: dict[str, bytes] = {name: json.dumps(texts[name]).encode() for name in texts}
        for name, entry in entries.items():
            if _TENSORS.fullmatch(name) or name in _MARKS:
                files[name] = archive.read(entry)
            elif name not in files and not _LEFT_OUT.fullmatch(name):
                raise _Refused(f"holds {_shown(name)}, which may be code")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as clean:
        for name, data in {**files, _SAMPLES: b""}.items():
            clean.writestr(f"program/{name}", data)
    content.seek(0)
    return content


def _config(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what says which file holds which weight, without pickles."""
    for key, payload in content["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise _Refused(f"{_shown(key)} is a pickle, which would have to be executed")
    cleaned: dict[str, Any] = _cleaned(content)
    return cleaned


def _model(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the graph and what belongs to it, without what Python would be made of."""
    graph = content["graph_module"]
    (root, *_) = graph["module_call_graph"]
    specs = ("in_spec", "out_spec")
    containers = {name: root["signature"].pop(name) for name in specs}
    graph |= {"metadata": {}, "treespec_namedtuple_fields": {}, "module_call_graph": [root]}
    cleaned: dict[str, Any] = _cleaned(content | {"guards_code": []})
    (root,) = cleaned["graph_module"]["module_call_graph"]
    root["signature"] |= {name: _containers(containers[name]) for name in specs}
    return cleaned


def _cleaned(value: Any, key: str = "") -> Any:
    """Returns a copy of ``value``, of which every word is one that is known to be harmless."""
    if isinstance(value, Mapping):
        if value.keys() == {"type", "index"}:  # a device, which may not be here
            return {"type": "cpu", "index": None}
        return {
            _word(name): {} if name == "metadata" else _cleaned(each, name)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(each, key) for each in value]
    return _word(value, key) if isinstance(value, str) else value


def _word(text: str, key: str = "") -> str:
    if key == "target" and text.startswith(("torch.", "_operator", "math", "#")):
        if "quantize" in text:  # also one of aten: fake_quantize_per_tensor_affine
            raise _Refused(f"is quantized (it calls {_shown(text)})", FLOAT)
        if not _OPERATOR.fullmatch(text) and not _ARITHMETIC.fullmatch(text):
            raise _Refused(f"calls {_shown(text)}, which is no operator of aten")
        return text
    if key == "as_operator":
        raise _Refused(f"calls {_shown(text)} by its name")
    allowed = {"expr_str": _EXPRESSION, "as_string": _EQUATION}.get(key, _NAME)
    if not allowed.fullmatch(text):
        raise _Refused(f"holds {_shown(text)}, which may be code")
    return text


def _containers(spec: str) -> str:
    """Returns what says how inputs or outputs are nested, of plain containers alone."""
    waiting = [json.loads(spec)[1]]
    while waiting:
        each = waiting.pop()
        context = each["context"]
        keys = json.loads(context) if isinstance(context, str) else context
        if each["type"] not in _CONTAINERS or not (keys is None or _are_names(keys)):
            raise _Refused(f"its inputs or outputs are {_shown(str(each['type']))}")
        waiting += each["children_spec"]
    return spec


def _are_names(keys: Any) -> bool:
    return isinstance(keys, list) and all(
        isinstance(key, str) and _NAME.fullmatch(key) for key in keys
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
