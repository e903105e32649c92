"""An ONNX graph to a TensorRT engine: one builder for both flavours.

TensorRT 11 and TensorRT for RTX have no FP16 switch: an engine computes in the types the graph
says (strongly typed), so a float16 graph makes a float16 engine. RTX needs no GPU to build.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from export.records import Fingerprint
from export.runtimes.base import RuntimeUnavailable
from models.errors import UserError

FlavourName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """Where the two TensorRTs differ.

    Attributes:
        module: Python module, and the format of the artifacts it builds.
        install: how to get it.
        builds_for_others: whether an engine can be built for GPUs that are not in this machine.
    """

    module: FlavourName
    install: str
    builds_for_others: bool


FLAVOURS: dict[FlavourName, Flavour] = {
    "tensorrt": Flavour(
        module="tensorrt", install="pip install .[tensorrt]", builds_for_others=False
    ),
    "tensorrt_rtx": Flavour(
        module="tensorrt_rtx", install="pip install tensorrt-rtx", builds_for_others=True
    ),
}


def import_flavour(name: FlavourName) -> Any:
    """Returns the Python module of a flavour.

    Raises:
        RuntimeUnavailable: it is not installed, and how to install it.
    """
    flavour = FLAVOURS[name]
    try:
        return importlib.import_module(flavour.module)
    except ImportError as error:
        raise RuntimeUnavailable(f"{name}: {error}; {flavour.install}") from None


def make_logger(trt: Any) -> Any:
    """Returns a TensorRT logger that keeps the texts of errors in its list ``errors``."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def build_engine(
    graph: bytes,
    name: FlavourName,
    *,
    batch_range: tuple[int, int],
    batches: Sequence[int] = (),
) -> tuple[bytes, Fingerprint]:
    """Returns a serialized engine for a typed ONNX graph with a free batch dimension.

    Args:
        graph: serialized ``ModelProto``, uint8 ("batch", H, W, 3) in.
        name: flavour that builds. ``tensorrt_rtx`` builds for every GPU generation it knows.
        batch_range: smallest and largest batch; the middle of its span in powers of two is what
            kernels are chosen for.
        batches: batch sizes that get a profile of their own.

    Raises:
        RuntimeUnavailable: the flavour is not installed.
        UserError: TensorRT refuses the graph; its own messages are in the error.
    """
    trt = import_flavour(name)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise _error(name, logger, "cannot parse the graph")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    pixels = network.get_input(0)
    smallest, largest = batch_range
    typical = max(smallest, int((smallest * largest) ** 0.5))
    shapes = [(batch, *tuple(pixels.shape)[1:]) for batch in (smallest, typical, largest)]
    profile.set_shape(pixels.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise _error(name, logger, f"refuses the batch sizes {smallest} to {largest}")
    if FLAVOURS[name].builds_for_others:
        _target_all_generations(trt, config)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _error(name, logger, "cannot build an engine")
    return bytes(engine), Fingerprint(
        version=trt.__version__,
        capabilities=(),
        driver=None,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        profiles=((smallest, typical, largest),),
    )


def _network_flags(trt: Any) -> int:
    # TensorRT 10 asks for strong typing by a flag; later ones know nothing else. The bit moved
    # between versions, so it is asked of the module.
    if int(trt.__version__.split(".")[0]) == 10:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def _target_all_generations(trt: Any, config: Any) -> None:
    known = trt.ComputeCapability
    targets = [
        capability
        for capability in known.__members__.values()
        if capability not in (known.NONE, known.CURRENT)
    ]
    config.num_compute_capabilities = len(targets)
    for index, capability in enumerate(targets):
        if not config.set_compute_capability(capability, index):
            raise UserError(f"{trt.__name__} cannot build for {capability.name}")


def _error(name: FlavourName, logger: Any, what: str) -> UserError:
    return UserError(f"{name} {what}: {'; '.join(logger.errors) or 'it gives no reason'}")
