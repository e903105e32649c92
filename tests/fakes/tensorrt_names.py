"""Prints the names, signatures and enum values of the TensorRT classes an engine needs.

python tests/fakes/tensorrt_names.py tensorrt_rtx
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

CLASSES = (
    "Builder",
    "ComputeCapability",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "Runtime",
)
# How pybind11 begins the docstring of a function, or of each of its overloads.
SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)(\((?:self|\*args).*)$", re.MULTILINE)
PREFIX = re.compile(r"\btensorrt(_rtx)?_bindings\.tensorrt(_rtx)?\.")


def names_of(trt: Any) -> Iterator[str]:
    """Yields ``Class.member``, ``Class.member = value`` or ``Class.method(signature)``, sorted.

    A method has a line for each overload; a class that ``trt`` lacks has none.
    """
    for kind in CLASSES:
        of_kind = getattr(trt, kind, None)
        for name in sorted(dir(of_kind) if of_kind else ()):
            if name.startswith("_") and name != "__init__":
                continue
            member = getattr(of_kind, name)
            if name in getattr(of_kind, "__members__", ()):
                yield f"{kind}.{name} = {int(member)}"
            elif signatures := list(_signatures(name, member)):
                yield from (f"{kind}.{name}{signature}" for signature in signatures)
            elif name != "__init__":
                yield f"{kind}.{name}"


def parameters(signature: str) -> list[tuple[str, bool]]:
    """Returns the name of each parameter after self, and whether it may be left out."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts = re.findall(r"(?:^|, )(\w+): (.*?)(?=, \w+: |$)", inside)
    return [(name, " = " in rest) for name, rest in parts if name != "self"]


def _signatures(name: str, member: Any) -> Iterator[str]:
    for called, signature in SIGNATURE.findall(member.__doc__ or ""):
        if called == name and not signature.startswith("(*args"):
            yield PREFIX.sub("", signature)


if __name__ == "__main__":
    print(*names_of(importlib.import_module(sys.argv[1])), sep="\n")
