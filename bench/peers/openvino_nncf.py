"""OpenVINO, with the int8 of NNCF.

Source: "Basic Quantization Flow" and "Precision Control" of OpenVINO's documentation:
``nncf.quantize`` with its defaults, or with the preset MIXED, which it recommends for activations
other than ReLU. Its CPU plugin computes in bfloat16 by default where the CPU can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.peers.material import Material

_FILE = "model.xml"


def make(files: str, material: Material, folder: Path) -> None:
    """Writes the float32 model, or one in int8 (``int8``, or ``int8-mixed``) to ``folder``."""
    import openvino

    model = openvino.convert_model(material.graph)
    if files != "fp32":
        import nncf

        pixels = material.calibration
        model = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in pixels]),
            subset_size=len(pixels),
            **({"preset": nncf.QuantizationPreset.MIXED} if files == "int8-mixed" else {}),
        )
    openvino.save_model(model, folder / _FILE, compress_to_fp16=False)


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, C) to float32 logits (1, N)."""
    import openvino

    from artifact.runtimes.openvino_cpu import DEVICE, core, cpu_config

    arithmetic = openvino.Type.bf16 if setting.endswith("bf16") else openvino.Type.f32
    compiled = core().compile_model(folder / _FILE, DEVICE, cpu_config(arithmetic, 1))
    request = compiled.create_infer_request()
    tensor = request.get_input_tensor()

    def infer(pixels: Any) -> Any:
        tensor.data[:] = pixels
        request.infer(share_outputs=True)
        return request.get_output_tensor().data.copy()

    return infer


def require(setting: str) -> None:
    """Raises RuntimeError if ``setting`` computes in bfloat16 and this CPU cannot."""
    import openvino

    from artifact.runtimes.openvino_cpu import DEVICE, core

    able = core().get_property(DEVICE, openvino.properties.device.capabilities())
    if setting.endswith("bf16") and "BF16" not in able:
        raise RuntimeError(f"this CPU has no bfloat16 (it has {', '.join(able)})")
