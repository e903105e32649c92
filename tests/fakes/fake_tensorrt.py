"""TensorRT without a GPU: modules with the names and signatures of the real ones, and no others.

An "engine" is its profiles and its graph, run by ONNX Runtime on the CPU. Where the documentation
leaves open what the real one does, the fake does what is worst for the caller. Every call whose
name is put in a module's ``failing`` fails the way the real one does, with a message to the logger.
"""

from __future__ import annotations

import ctypes
import functools
import pickle
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

NULL = TypeError("pybind11::init(): factory function returned nullptr")
Sizes = tuple[int, ...]


def may_fail(answer: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets a method fail on demand: log why and return ``answer``, or raise it."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            trt = self._trt
            trt.calls.append(method.__qualname__)
            if method.__qualname__ not in trt.failing:
                return method(self, *arguments, **named)
            return fail(trt, f"{method.__qualname__}\nfailed", answer)

        return call

    return wrap


def fail(trt: Any, message: str, answer: object) -> Any:
    trt.logger.log(trt.ILogger.INFO, "unasked")
    trt.logger.log(trt.ILogger.ERROR, message)
    if isinstance(answer, Exception):
        raise answer
    return answer


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    INFO = 3


class ILogger:
    ERROR = Severity.ERROR
    INFO = Severity.INFO
    INTERNAL_ERROR = Severity.INTERNAL_ERROR

    def __init__(self) -> None:
        self._trt.logger = self

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError("must be overridden")


class ITensor:
    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return self._value.name

    @property
    def shape(self) -> Sizes:
        return tuple(dim.dim_value or -1 for dim in self._value.type.tensor_type.shape.dim)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._graph = b""

    def get_input(self, index: int) -> ITensor:
        return ITensor(onnx.load_from_string(self._graph).graph.input[index])


class OnnxParser:
    @may_fail(NULL)
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    @may_fail(False)
    def parse(self, model: bytes, path: str | None = None) -> bool:
        self._network._graph = model
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._sizes: Sizes = ()

    def set_shape(self, input: str, min: Sizes, opt: Sizes, max: Sizes) -> None:
        assert min[1:] == opt[1:] == max[1:]
        assert min[0] <= opt[0] <= max[0]
        self._sizes = (min[0], opt[0], max[0])


class IBuilderConfig:
    def __init__(self) -> None:
        self._profiles: list[Sizes] = []

    @may_fail(-1)
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile._sizes)
        return len(self._profiles) - 1


class RtxBuilderConfig(IBuilderConfig):
    num_compute_capabilities = 0

    @may_fail(False)
    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        return index < self.num_compute_capabilities


class Builder:
    @may_fail(NULL)
    def __init__(self, logger: ILogger) -> None:
        pass

    @may_fail(None)
    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    @may_fail(None)
    def create_builder_config(self) -> IBuilderConfig:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    @may_fail(None)
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> memoryview | None:
        if network._flags != self._trt.strongly_typed:
            return fail(self._trt, "the network is not strongly typed", None)
        return memoryview(pickle.dumps((config._profiles, network._graph)))


class IExecutionContext:
    def __init__(self, profiles: list[Sizes], graph: bytes) -> None:
        self._profiles = profiles
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self._switch(0)

    def _switch(self, profile: int) -> None:
        self._profile = profile
        self._shape: Sizes | None = None
        self._addresses: dict[str, int] = {}

    @may_fail(False)
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._switch(profile_index)
        return True

    @may_fail(False)
    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    @may_fail(False)
    def set_input_shape(self, name: str, shape: Sizes) -> bool:
        low, _, high = self._profiles[self._profile]
        if not low <= shape[0] <= high:
            return fail(self._trt, f"{shape[0]} is outside {low}..{high}", False)
        self._shape = shape
        return True

    @may_fail(False)
    def execute_async_v3(self, stream_handle: int) -> bool:
        (pixels,), (logits,) = self._session.get_inputs(), self._session.get_outputs()
        if self._shape is None or not self._addresses.keys() >= {pixels.name, logits.name}:
            return fail(self._trt, "the input has no shape or a tensor no address", False)
        self._trt.put(self._run)
        return True

    def _run(self) -> None:
        (pixels,), (logits,) = self._session.get_inputs(), self._session.get_outputs()
        assert self._shape is not None
        self._trt.ran_profiles.append(self._profiles[self._profile])
        size = int(np.prod(self._shape))
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[pixels.name])
        given = np.frombuffer(memory, np.uint8).reshape(self._shape)
        (answer,) = self._session.run(None, {pixels.name: given})
        ctypes.memmove(self._addresses[logits.name], answer.ctypes.data, answer.nbytes)


class ICudaEngine:
    def __init__(self, profiles: list[Sizes], graph: bytes) -> None:
        self._made_of = profiles, graph

    @may_fail(None)
    def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
        return self._trt.IExecutionContext(*self._made_of)


class Runtime:
    @may_fail(NULL)
    def __init__(self, logger: ILogger) -> None:
        pass

    @may_fail(None)
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
        return self._trt.ICudaEngine(*pickle.loads(serialized_engine))


# What NetworkDefinitionCreationFlag.STRONGLY_TYPED is in each version.
FLAGS_10 = IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
FLAGS_11 = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
GENERATIONS = IntEnum("ComputeCapability", {"NONE": 0, "CURRENT": 1, "SM86": 86, "SM120": 120})


def fake_trt(name: str, version: str) -> Any:
    """Returns a fresh module ``name`` of that version.

    Beside the real names it has ``calls``, ``failing``, ``ran_profiles``, ``strongly_typed``, the
    flags that a network must be created with, and ``put``, which is given what runs on a stream.
    """
    trt: Any = ModuleType(name)
    trt.__version__ = version
    trt.calls, trt.failing, trt.ran_profiles = [], set(), []
    trt.put = lambda work: work()
    trt.strongly_typed = 1 << 1 if version.startswith("10.") else 0
    trt.NetworkDefinitionCreationFlag = FLAGS_10 if version.startswith("10.") else FLAGS_11
    for kind in (
        *(ILogger, ITensor, INetworkDefinition, OnnxParser, IOptimizationProfile),
        *(IBuilderConfig, Builder, IExecutionContext, ICudaEngine, Runtime),
    ):
        setattr(trt, kind.__name__, type(kind.__name__, (kind,), {"_trt": trt}))
    if name == "tensorrt_rtx":
        trt.ComputeCapability = GENERATIONS
        trt.IBuilderConfig = type("IBuilderConfig", (RtxBuilderConfig,), {"_trt": trt})
    return trt
