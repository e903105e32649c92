"""ExecuTorch without its package: modules with the names and signatures of 1.5.1, and no others.

A .pte file is the exported program as torch saves it; torch runs it. The real file holds no Python.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.export import ExportedProgram

SCALARS = {torch.uint8: 0, torch.float32: 6}


class XnnpackPartitioner:
    def __init__(
        self,
        configs: Any = None,
        config_precisions: Any = None,
        per_op_mode: bool = False,
        verbose: bool = False,
    ) -> None: ...


class EdgeProgramManager:
    def __init__(self, program: ExportedProgram) -> None:
        self._program = program

    def to_executorch(self, config: Any = None) -> SimpleNamespace:
        file = io.BytesIO()
        torch.export.save(self._program, file)
        return SimpleNamespace(buffer=file.getvalue())


def to_edge_transform_and_lower(
    programs: ExportedProgram,
    transform_passes: Any = None,
    partitioner: list[XnnpackPartitioner] | None = None,
    constant_methods: Any = None,
    compile_config: Any = None,
    generate_etrecord: bool = False,
) -> EdgeProgramManager:
    assert isinstance(programs, ExportedProgram)
    assert [type(each) for each in partitioner or []] == [XnnpackPartitioner]
    return EdgeProgramManager(programs)


class TensorInfo:
    def __init__(self, value: torch.Tensor) -> None:
        self._value = value

    def sizes(self) -> tuple[int, ...]:
        return tuple(self._value.shape)

    def dtype(self) -> int:
        return SCALARS[self._value.dtype]


class MethodMeta:
    def __init__(self, inputs: list[Any], outputs: list[Any]) -> None:
        self._inputs, self._outputs = inputs, outputs

    def num_inputs(self) -> int:
        return len(self._inputs)

    def num_outputs(self) -> int:
        return len(self._outputs)

    def input_tensor_meta(self, index: int) -> TensorInfo:
        return TensorInfo(self._inputs[index])

    def output_tensor_meta(self, index: int) -> TensorInfo:
        return TensorInfo(self._outputs[index])


class Method:
    threads: ThreadPool

    def __init__(self, program: ExportedProgram) -> None:
        self._pool = self.threads.resets
        self._run = program.module()
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        signature = program.graph_signature
        self.metadata = MethodMeta(
            [values[name] for name in signature.user_inputs],
            [values[name] for name in signature.user_outputs],
        )

    def execute(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        (given,) = inputs
        if given.shape != self.metadata.input_tensor_meta(0).sizes():
            raise RuntimeError("method->set_inputs() for method 'forward' failed with error 0x10")
        assert self._pool == self.threads.resets, "the real one would use a freed thread pool"
        with torch.inference_mode():
            return [self._run(given)]


class Program:
    def __init__(self, program: ExportedProgram) -> None:
        self._program = program

    def load_method(self, name: str) -> Method:
        return {"forward": Method(self._program)}[name]


class BackendRegistry:
    names = ("XnnpackBackend",)

    def is_available(self, backend_name: str) -> bool:
        return backend_name in self.names


class Runtime:
    @staticmethod
    def get() -> Runtime:
        return Runtime()

    @property
    def backend_registry(self) -> BackendRegistry:
        return BackendRegistry()

    def load_program(
        self,
        data: bytes | bytearray | io.BytesIO | Path | str,
        *,
        verification: Any = None,
        enable_etdump: bool = False,
        debug_buffer_size: int = 0,
        data_path: Path | str | None = None,
    ) -> Program:
        if not isinstance(data, (Path, str)):
            raise TypeError("this fake reads files alone")
        try:
            return Program(torch.export.load(data))
        except Exception:
            raise RuntimeError("loading program failed with error 0x23") from None


class ThreadPool:
    """The threads of this process."""

    def __init__(self) -> None:
        self.count, self.resets = 8, 0

    def _threadpool_get_thread_count(self) -> int:
        return self.count

    def _unsafe_reset_threadpool(self, num_threads: int) -> None:
        self.count = num_threads
        self.resets += 1


def modules(threads: ThreadPool) -> dict[str, ModuleType]:
    """Returns the modules by name, for ``sys.modules``."""
    Method.threads = threads
    portable_lib = SimpleNamespace(
        _threadpool_get_thread_count=threads._threadpool_get_thread_count,
        _unsafe_reset_threadpool=threads._unsafe_reset_threadpool,
    )
    contents: dict[str, dict[str, Any]] = {
        "executorch": {},
        "executorch.backends": {},
        "executorch.backends.xnnpack": {},
        "executorch.backends.xnnpack.partition": {},
        "executorch.backends.xnnpack.partition.xnnpack_partitioner": {
            "XnnpackPartitioner": XnnpackPartitioner
        },
        "executorch.exir": {"to_edge_transform_and_lower": to_edge_transform_and_lower},
        "executorch.extension": {},
        "executorch.extension.pybindings": {"portable_lib": portable_lib},
        "executorch.runtime": {"Runtime": Runtime},
    }
    made = {}
    for name, members in contents.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(members)
    return made
