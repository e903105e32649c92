"""LiteRT on a CPU, by XNNPACK: what runs a .tflite file on a phone, too."""

from __future__ import annotations

from collections import deque
from mmap import ACCESS_READ, mmap
from typing import Any

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels, require_import
from core.cores import usable_cores
from core.errors import first_line
from core.preprocess import Pixels


class LitertRuntime(Runtime):
    """A .tflite file in interpreters; calls may come from several threads at once.

    An interpreter serves one call at a time, so each call takes an idle one, or makes one, and puts
    it back: there are as many as there ever were calls at once, each with weights of its own. It
    takes 0.2 ms to fit one to a batch of another size.
    """

    name = "litert"

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._artifact = artifact
        self._threads = threads
        self._idle: deque[Any] = deque([self._interpreter()])  # its append and pop are atomic

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        check_pixels(pixels, self._artifact)
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._interpreter()
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        if tuple(source["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(source["index"], pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], pixels)
        interpreter.invoke()
        logits: Logits = interpreter.get_tensor(result["index"])
        self._idle.append(interpreter)
        return logits

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._idle.clear()

    def _interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(self._artifact.model_file), num_threads=self._threads)
        interpreter.allocate_tensors()
        _check_ends(self._artifact, interpreter)
        return interpreter


def require(name: str) -> None:
    """Raises RuntimeUnavailable if LiteRT cannot be imported.

    Args:
        name: of the runtime, or of the format, which is called the same.
    """
    require_import(name, "ai_edge_litert.interpreter", "flatbuffers")


def load(artifact: Artifact, *, threads: int | None = None) -> LitertRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None).

    Raises:
        RuntimeUnavailable: LiteRT is not installed, or cannot run the file: it refers to other
            files, has operators of somebody's own, or takes and gives something else.
    """
    require("litert")
    try:
        _check_alone(artifact)
        return LitertRuntime(artifact, threads or usable_cores())
    except (ValueError, RuntimeError) as error:
        raise RuntimeUnavailable(
            f"litert: cannot run {artifact.model_file} ({first_line(error)})"
        ) from error


def _check_alone(artifact: Artifact) -> None:
    """Raises ValueError if the file refers to others, of which the manifest knows nothing."""
    from ai_edge_litert.schema_py_generated import Model

    with artifact.model_file.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if not Model.ModelBufferHasIdentifier(data, 0):
            raise ValueError("it is no .tflite file")
        if Model.GetRootAs(data).ExternalBufferGroupsLength():
            raise ValueError("it refers to other files, and none may; export it again")


def _check_ends(artifact: Artifact, interpreter: Any) -> None:
    """Raises ValueError unless a loaded file takes and gives what the manifest says."""
    ends = (
        (interpreter.get_input_details(), artifact.input),
        (interpreter.get_output_details(), artifact.output),
    )
    for tensors, wanted in ends:
        found = [(np.dtype(each["dtype"]).name, tuple(each["shape_signature"])) for each in tensors]
        shape = tuple(-1 if size == "batch" else size for size in wanted.shape)
        if found != [(wanted.dtype, shape)]:
            raise ValueError(
                f"{wanted.name} must be {wanted.dtype} {list(shape)}, and it has {found}"
            )
