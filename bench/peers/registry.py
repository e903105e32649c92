"""The peers: toolchains by others that run the same networks, and the settings each is tried in."""

from __future__ import annotations

from dataclasses import dataclass

from artifact.records import Precision
from core.registry import Registry

INSTALL = "pip install '.[peers]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A way to run a network in a peer.

    Attributes:
        name: name of the setting.
        precision: whose gates it has to hold.
        files: name of the files that it runs; settings may share some.
        absent: why it cannot be tried; empty if it can.
    """

    name: str
    precision: Precision
    files: str = ""
    absent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSpec:
    """The registry entry of a peer.

    Attributes:
        name: name on the command line and in tables.
        module: has ``make(files, material, folder)``, which writes files, ``load(setting,
            folder)``, which returns a function of pixels to logits with one thread, and perhaps
            ``require(setting)``, which raises RuntimeError where this machine cannot.
        settings: what to try, each as its documentation says.
        packages: PyPI names of what runs its files.
        tools: PyPI names of what makes them, too.
        elsewhere: why the tools may need a Python of another environment; empty if not.
    """

    name: str
    module: str
    settings: tuple[Setting, ...]
    packages: tuple[str, ...]
    tools: tuple[str, ...] = ()
    elsewhere: str = ""


PEERS = Registry[PeerSpec]("peer")

PEERS.register(
    PeerSpec(
        name="onnxruntime",
        module="bench.peers.ort_static",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="int8 (S8S8, defaults)", precision="int8", files="int8"),
            Setting(name="int8 (U8S8, per channel)", precision="int8", files="int8-u8s8"),
        ),
        packages=("onnxruntime-gpu", "onnxruntime"),
    )
)
PEERS.register(
    PeerSpec(
        name="openvino",
        module="bench.peers.openvino_nncf",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="bf16", precision="bf16", files="fp32"),
            Setting(name="NNCF int8", precision="int8", files="int8"),
            Setting(name="NNCF int8, rest bf16", precision="int8", files="int8"),
            Setting(name="NNCF int8 MIXED", precision="int8", files="int8-mixed"),
            Setting(name="NNCF int8 MIXED, rest bf16", precision="int8", files="int8-mixed"),
        ),
        packages=("openvino",),
        tools=("nncf",),
    )
)
PEERS.register(
    PeerSpec(
        name="litert",
        module="bench.peers.litert_torch_int8",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="int8", precision="int8", files="int8"),
        ),
        packages=("ai-edge-litert",),
        tools=("litert-torch", "litert-quantizer"),
        elsewhere=(
            "litert-torch may not go with this torch: install it and litert-quantizer in an "
            "environment of their own, and give its Python as --litert-python"
        ),
    )
)
PEERS.register(
    PeerSpec(
        name="executorch",
        module="bench.peers.executorch_xnnpack",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="int8", precision="int8", files="int8"),
        ),
        packages=("executorch",),
        tools=("torchao",),
    )
)
PEERS.register(
    PeerSpec(
        name="ncnn",
        module="bench.peers.ncnn_pnnx",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="fp16 (defaults)", precision="fp16", files="fp32"),
            Setting(name="bf16", precision="bf16", files="fp32"),
            Setting(
                name="int8",
                precision="int8",
                absent="ncnn2table and ncnn2int8 are in no Python package of ncnn",
            ),
        ),
        packages=("ncnn",),
        tools=("pnnx",),
    )
)
PEERS.register(
    PeerSpec(
        name="mnn",
        module="bench.peers.mnn_cpu",
        settings=(
            Setting(name="fp32", precision="fp32", files="fp32"),
            Setting(name="int8 weights", precision="int8", files="int8-weights"),
            Setting(name="int8", precision="int8", files="int8"),
        ),
        packages=("MNN",),
    )
)


def peer_packages() -> tuple[str, ...]:
    """Returns the PyPI names of all packages of all peers."""
    return tuple(
        dict.fromkeys(each for spec in PEERS.values() for each in (*spec.packages, *spec.tools))
    )
