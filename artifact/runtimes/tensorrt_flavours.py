"""The differences between TensorRT and TensorRT for RTX."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable
from artifact.runtimes.gpu import require_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """The properties of a flavour.

    Attributes:
        builds_for_others: whether it builds for every GPU generation it supports, without needing
            a GPU; otherwise it builds for the GPU of this machine.
    """

    builds_for_others: bool


FLAVOURS: dict[str, Flavour] = {
    "tensorrt": Flavour(builds_for_others=False),
    "tensorrt_rtx": Flavour(builds_for_others=True),
}


class Target(NamedTuple):
    """The GPUs that an engine built on this machine runs on."""

    capabilities: tuple[str, ...]  # compute capabilities, such as 8.6
    driver: str | None  # CUDA version of this machine's driver; None without a GPU


def import_flavour(name: str) -> Any:
    """Returns the Python module of a flavour.

    Raises:
        RuntimeUnavailable: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        install = RUNTIMES.find(name.replace("_", "-")).install
        raise RuntimeUnavailable(f"{name}: {error}; {install}") from None


def find_target(name: str) -> Target:
    """Returns the GPUs that an engine built here with flavour ``name`` runs on.

    Raises:
        RuntimeUnavailable: the flavour is not installed, or needs a GPU to build and there is none.
    """
    trt, others = import_flavour(name), FLAVOURS[name].builds_for_others
    try:
        gpu = require_gpu(name)
    except RuntimeUnavailable:
        if others:
            return Target(tuple(_generations(trt)), None)
        raise
    return Target(tuple(_generations(trt)) if others else (gpu.capability,), gpu.driver)


def aim(name: str, trt: Any, config: Any) -> bool:
    """Sets the capabilities of :func:`find_target` in ``config``; returns whether it worked."""
    if not FLAVOURS[name].builds_for_others:
        return True  # this flavour always builds for the GPU of this machine
    generations = _generations(trt).values()
    config.num_compute_capabilities = len(generations)
    return all(
        config.set_compute_capability(generation, index)
        for index, generation in enumerate(generations)
    )


def network_flags(trt: Any) -> int:
    """Returns the flags of a strongly typed network, which computes in its graph's types."""
    # TensorRT 10 needs a flag; in later versions and in RTX all networks are strongly typed. The
    # bit differs between versions, so it is looked up in the module.
    if trt.__version__.startswith("10."):
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def make_logger(trt: Any) -> Any:
    """Returns a TensorRT logger; its ``reason()`` returns the errors since its last call."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self._errors.append(" ".join(message.split()))  # our error messages are one line

        def reason(self) -> str:
            reason = "; ".join(self._errors) or "it gives no reason"
            self._errors.clear()
            return reason

    return Logger()


def create(kind: Any, *arguments: Any) -> Any | None:
    """Returns a ``trt.Builder``, ``Runtime`` or ``OnnxParser``; None if it cannot be created."""
    try:
        return kind(*arguments)
    except TypeError as error:
        # The bindings raise this for a null pointer in a constructor; elsewhere they return None.
        if "returned nullptr" not in str(error):
            raise
        return None


def _generations(trt: Any) -> dict[str, Any]:
    """Returns the members of ``ComputeCapability`` by capability: SM75 is 7.5, SM120 is 12.0."""
    members = trt.ComputeCapability.__members__
    return {
        f"{name[2:-1]}.{name[-1]}": member
        for name, member in members.items()
        if name.startswith("SM")
    }
