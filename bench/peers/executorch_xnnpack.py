"""ExecuTorch with XNNPACK, and its int8 by PT2E.

Source: "XNNPACK Backend" and its page on quantization of ExecuTorch's documentation: static, 8-bit
symmetric weights with a scale for each channel.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bench.peers.material import Material

_FILE = "model.pte"


def make(files: str, material: Material, folder: Path) -> None:
    """Writes the float32 program, or the one in int8 to ``folder``."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    warnings.simplefilter("ignore")  # deprecations inside these libraries
    program = torch.export.load(material.program)
    if files == "int8":
        program = _quantized(program, torch.from_numpy(material.calibration))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    (folder / _FILE).write_bytes(lowered.to_executorch().buffer)


def _quantized(program: Any, pixels: Any) -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    with torch.inference_mode():
        for image in pixels.split(1):
            prepared(image)
    return torch.export.export(convert_pt2e(prepared), (pixels[:1],))


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, C) to float32 logits (1, N)."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(folder / _FILE).load_method("forward")
    return lambda pixels: method.execute([torch.from_numpy(pixels)])[0].numpy()
