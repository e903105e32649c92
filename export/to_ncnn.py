"""An ONNX graph to the .param and .bin files of ncnn, by pnnx."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from artifact.artifact import Artifact
from artifact.runtimes import ncnn_cpu
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable
from export.one_image import Unconvertible, for_one_image

_LIMIT = 900  # s: pnnx takes one or two, and all networks of timm less than a minute


def require(name: str) -> None:
    """Raises RuntimeUnavailable if ncnn or pnnx is not installed."""
    ncnn_cpu.require(name)
    if find_spec("pnnx") is None:
        install = RUNTIMES.find("ncnn").install
        raise RuntimeUnavailable(f"{name}: pnnx is not installed; {install}")


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .param and .bin files in its folder.

    Args:
        draft: the artifact; float16 ones store their weights as such.
        graph: serialized ``ModelProto``, in float32.
        batches: sizes to optimise for; ncnn knows none, its nets take one image.

    Raises:
        Unconvertible: pnnx cannot convert the graph, or ncnn lacks one of its layers.
    """
    import onnx

    if (channels := draft.preprocess.channels) not in ncnn_cpu.PIXEL_TYPES:
        raise Unconvertible(f"ncnn: it has no pixels of {channels} channels, grey and alpha")
    param, weights = (draft.path / name for name in draft.spec.files)
    source, given = onnx.load_from_string(graph), (draft.input.name, draft.output.name)
    with TemporaryDirectory(dir=draft.path) as folder:  # it writes nine files, all in here
        onnx.save(for_one_image(source, "ncnn"), Path(folder, "graph.onnx"))
        _run_pnnx(Path(folder), half=draft.precision == "fp16")
        lines = Path(folder, "graph.ncnn.param").read_text()
        Path(folder, "graph.ncnn.bin").rename(weights)
    param.write_text(_renamed(lines, dict(zip(("in0", "out0"), given, strict=True))))
    _check_layers(param)
    return draft


def _run_pnnx(folder: Path, *, half: bool) -> None:
    """Converts graph.onnx in ``folder``; the Python code that pnnx writes there is not run."""
    import pnnx

    line = [pnnx.EXEC_PATH, "graph.onnx", f"fp16={int(half)}"]
    try:
        done = subprocess.run(
            line, cwd=folder, capture_output=True, text=True, check=False, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired:
        raise Unconvertible(f"ncnn: pnnx was not done after {_LIMIT} s") from None
    made = [Path(folder, f"graph.ncnn.{kind}").exists() for kind in ("param", "bin")]
    if done.returncode or not all(made):
        lines = [text for text in (done.stderr or done.stdout).splitlines() if text.strip()]
        why = lines[-1].strip() if lines else "without a word"
        raise Unconvertible(f"ncnn: pnnx ended with status {done.returncode} ({why})")


def _renamed(param: str, names: dict[str, str]) -> str:
    """Returns a .param file with other names of its blobs."""
    for old, new in names.items():
        param = re.sub(rf"(?<=\s){old}(?=\s)", new, param)
    return param


def _check_layers(param: Path) -> None:
    """Raises Unconvertible unless ncnn knows all layers: pnnx writes whatever it finds."""
    import ncnn

    layers = [line.split()[:2] for line in param.read_text().splitlines()[2:]]
    for kind, name in layers:
        if ncnn.layer_to_index(kind) < 0:
            raise Unconvertible(f"ncnn: {kind} {name}: ncnn has no such layer")
    ncnn_cpu.read_param(ncnn.Net(), param)
