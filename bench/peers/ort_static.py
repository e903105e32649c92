"""ONNX Runtime, with its own static quantization.

Source: "Quantize ONNX Models" of its documentation: pre-processing, then ``quantize_static`` in QDQ
form; signed activations and weights first, unsigned activations where speed matters.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.material import Material

_FILE = "model.onnx"


def make(files: str, material: Material, folder: Path) -> None:
    """Writes the float32 graph, or one in int8 (``int8``, or ``int8-u8s8``) to ``folder``."""
    if files == "fp32":
        shutil.copy(material.graph, folder / _FILE)
        return
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images: Iterator[Any] = iter(material.calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {"pixels": image[None]}

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(material.graph), str(prepared))
    options: dict[str, Any] = {}  # its defaults: int8 activations, a scale for each tensor
    if files == "int8-u8s8":
        options = {"activation_type": QuantType.QUInt8, "per_channel": True}
    quantize_static(str(prepared), str(folder / _FILE), Reader(), **options)
    prepared.unlink()


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, C) to float32 logits (1, N)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / _FILE), options, ["CPUExecutionProvider"], enable_fallback=0
    )
    return lambda pixels: session.run(None, {"pixels": pixels})[0]
