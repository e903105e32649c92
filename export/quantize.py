"""A float32 ONNX graph to int8, by static calibration on real images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from models.preprocess import Pixels


def to_int8(model: Any, calibration: Iterable[Pixels]) -> Any:
    """Returns an ONNX ``ModelProto`` in QDQ form: uint8 activations, int8 weights per channel.

    Weights use 7 of their 8 bits (``reduce_range``), because products of full-range uint8 and
    int8 overflow the 16-bit sums of CPUs with AVX2 and no VNNI.

    Args:
        model: float32 graph, uint8 pixels in.
        calibration: batches of uint8 (n, H, W, 3) that show the range of each activation.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batches: Iterator[Pixels]) -> None:
            self._batches = batches

        def get_next(self) -> dict[str, Pixels] | None:
            batch = next(self._batches, None)
            return None if batch is None else {model.graph.input[0].name: batch}

    with tempfile.TemporaryDirectory() as folder:
        # Files, not protos: given a proto, ONNX Runtime moves its weights to a file and loses them.
        plain, prepared, quantized = (
            str(Path(folder) / name) for name in ("fp32.onnx", "prepared.onnx", "int8.onnx")
        )
        onnx.save(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Reader(iter(calibration)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        result = onnx.load(quantized)
    onnx.checker.check_model(result, full_check=True)
    return result
