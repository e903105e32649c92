"""ncnn on a CPU, as on a phone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels, require_import
from core.cores import usable_cores
from core.preprocess import Pixels

PIXEL_TYPES = {1: "PIXEL_GRAY", 3: "PIXEL_RGB", 4: "PIXEL_RGBA"}  # by the number of channels


class NcnnRuntime(Runtime):
    """A .param file and its .bin file in a net; calls may come from several threads at once.

    ncnn has no batches: the images of a batch run one by one, each in one thread of the call. A
    lone image gets all threads, in a net of its own, as a net's number of threads is fixed.
    """

    name = "ncnn"

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._artifact = artifact
        self._one = _net(artifact, 1)
        self._all = self._one if threads == 1 else _net(artifact, threads)
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        check_pixels(pixels, self._artifact)
        images = np.ascontiguousarray(pixels)
        if len(images) == 1 or self._all is self._one:
            return np.stack([self._logits(self._all, image) for image in images])
        return np.stack(list(self._pool.map(partial(self._logits, self._one), images)))

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._pool.shutdown()
        self._one.clear()
        self._all.clear()

    def _logits(self, net: Any, image: Pixels) -> Logits:
        import ncnn

        height, width, channels = image.shape
        # From uint8 (H, W, C) to float32 (C, H, W): 0 to 255, as the net normalises by itself.
        kind = getattr(ncnn.Mat.PixelType, PIXEL_TYPES[channels])
        source = ncnn.Mat.from_pixels(image, kind, width, height)
        extractor = net.create_extractor()
        extractor.input(self._artifact.input.name, source)
        status, result = extractor.extract(self._artifact.output.name)
        if status:
            raise RuntimeUnavailable(f"ncnn: cannot run {self._artifact.model_file} ({status})")
        return np.array(result, dtype=np.float32)


def require(name: str) -> None:
    """Raises RuntimeUnavailable if ncnn cannot be imported."""
    require_import(name, "ncnn")


def load(artifact: Artifact, *, threads: int | None = None) -> NcnnRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None).

    Raises:
        RuntimeUnavailable: ncnn is not installed or cannot read the files, or they take or give
            something else than the manifest says.
    """
    require("ncnn")
    runtime = NcnnRuntime(artifact, threads or usable_cores())
    logits = runtime(np.zeros((1, *artifact.preprocess.shape), np.uint8))
    if logits.shape[1:] != artifact.output.shape[1:]:
        what = f"it gives {list(logits.shape[1:])}, and the manifest says {len(artifact.labels)}"
        raise RuntimeUnavailable(f"ncnn: cannot run {artifact.model_file} ({what} logits)")
    return runtime


def read_param(net: Any, file: Path) -> None:
    """Reads the layers of a net from a .param file.

    Raises:
        RuntimeUnavailable: it is damaged, or has a layer that ncnn does not know.
    """
    if net.load_param(str(file)):
        raise RuntimeUnavailable(f"ncnn: cannot read {file}; export it again")


def _net(artifact: Artifact, threads: int) -> Any:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if artifact.precision == "fp32":  # by default it computes in float16 where the CPU can
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    read_param(net, artifact.model_file)
    ends = net.input_names(), net.output_names()
    if ends != (wanted := ([artifact.input.name], [artifact.output.name])):
        what = f"its ends are {ends[0]} and {ends[1]}, and must be {wanted[0]} and {wanted[1]}"
        raise RuntimeUnavailable(f"ncnn: cannot run {artifact.model_file} ({what})")
    weights = artifact.path / artifact.spec.files[1]
    if net.load_model(str(weights)):
        raise RuntimeUnavailable(f"ncnn: cannot read {weights}; export it again")
    return net
