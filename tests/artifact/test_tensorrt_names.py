"""Whether what we call is there, in modules that cannot all be installed here.

The tests run the code on fakes, so it calls nothing that a fake lacks. Here every name and
signature of the fakes is held against the real bindings, and so is every name in the code's text.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorrt_names
from fake_cuda import FakeCuda
from fake_tensorrt import fake_trt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WHEELS = {"11.4.0.106": "tensorrt_11_4_names.txt", "10.16.1.11": "tensorrt_10_16_names.txt"}
FLAVOURS = [("tensorrt", version) for version in WHEELS] + [("tensorrt_rtx", "1.7.1.116")]
MADE_BY_THE_CODE = ("Builder", "OnnxParser", "Runtime", "ILogger")
CODE = ("tensorrt_flavours.py", "tensorrt_builder.py", "tensorrt_engine.py")
# What the code calls its TensorRT objects, and their class.
VARIABLES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "pixels": "ITensor",
    "profile": "IOptimizationProfile",
    "self._runtime": "Runtime",
    "place.context": "IExecutionContext",
    "self._engine": "ICudaEngine",
    "trt.ILogger": "ILogger",
    "trt.NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
}
NUMPY = {("tensorrt_engine.py", "pixels")}  # an array, not a tensor
RTX_ONLY = {"IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"}
# What the bindings want of NVIDIA's libraries when they are imported, and never call until used.
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def committed(file: str) -> list[str]:
    return [line for line in (HERE / file).read_text().splitlines() if not line.startswith("#")]


def real_lines(flavour: str, version: str) -> list[str]:
    """Returns what :mod:`tensorrt_names` prints of a real module."""
    if flavour == "tensorrt":
        return committed(WHEELS[version])
    return list(tensorrt_names.names_of(pytest.importorskip(flavour, exc_type=ImportError)))


def fake_members(trt: Any) -> Iterator[tuple[str, Any]]:
    """Yields every member of the fake's classes that the code may use."""
    for kind in tensorrt_names.CLASSES:
        of_kind = getattr(trt, kind, object)
        members = {name for base in of_kind.__mro__[:-1] for name in vars(base)}
        for name in getattr(of_kind, "__members__", members):
            if not name.startswith("_") or (name == "__init__" and kind in MADE_BY_THE_CODE):
                yield f"{kind}.{name}", getattr(of_kind, name)


@pytest.mark.parametrize(("flavour", "version"), FLAVOURS)
def test_the_fakes_have_only_what_is_real(flavour: str, version: str) -> None:
    real: dict[str, list[str]] = defaultdict(list)  # the signatures of each name
    for line in real_lines(flavour, version):
        name, _, signature = line.partition(" = ")[0].partition("(")
        real[name].append(signature and line)
    used = dict(fake_members(fake_trt(flavour, version)))
    assert len(used) > 20
    assert used.keys() - real.keys() == set()
    for name, member in used.items():
        if inspect.isfunction(member):
            ours = [
                (parameter.name, parameter.default is not parameter.empty)
                for parameter in list(inspect.signature(member).parameters.values())[1:]
            ]
            assert ours in [tensorrt_names.parameters(signature) for signature in real[name]], name


def called_names() -> Iterator[tuple[str, str]]:
    """Yields (variable, ``Class.member``) of each use of a TensorRT object in the code's text."""
    for file in CODE:
        for node in ast.walk(ast.parse((ROOT / "artifact" / "runtimes" / file).read_text())):
            if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
                variable = ast.unparse(node.value)
                if variable in VARIABLES and (file, variable) not in NUMPY:
                    yield variable, f"{VARIABLES[variable]}.{node.attr}"


@pytest.mark.parametrize(("flavour", "version"), FLAVOURS)
def test_the_code_calls_only_what_is_real(flavour: str, version: str) -> None:
    real = {re.split(r" = |\(", line)[0] for line in real_lines(flavour, version)}
    used = set(called_names())
    assert {variable for variable, _ in used} == VARIABLES.keys()
    names = {name for _, name in used}
    assert names - real == (set() if flavour == "tensorrt_rtx" else RTX_ONLY)


@pytest.mark.parametrize(("flavour", "version"), FLAVOURS)
def test_strong_typing_is_the_bit_the_fake_says(flavour: str, version: str) -> None:
    bit = int(fake_trt(flavour, version).NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert f"NetworkDefinitionCreationFlag.STRONGLY_TYPED = {bit}" in real_lines(flavour, version)


def test_cuda_has_what_the_fake_has() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    for name, member in inspect.getmembers(FakeCuda, inspect.isfunction):
        if name.startswith("cuda"):
            ours = list(inspect.signature(member).parameters)[1:]
            assert ours == list(inspect.signature(getattr(runtime, name)).parameters), name
    for enum in (FakeCuda.cudaError_t, FakeCuda.cudaMemcpyKind, FakeCuda.cudaStreamCaptureMode):
        real = getattr(runtime, enum.__name__)
        assert {(m.name, int(m)) for m in enum} <= {(m.name, int(m)) for m in real}


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_the_committed_names_are_those_of_the_wheel(version: str, tmp_path: Path) -> None:
    """Imports the real bindings, over empty stand-ins for the libraries that only NVIDIA has."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the committed names are those of the wheel for Python 3.11")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) to make stand-ins with")
    wheel = f"tensorrt_cu13_bindings=={version}"
    options = ["--no-deps", "--only-binary=:all:", "--quiet"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(tmp_path), wheel]
    downloaded = subprocess.run(pip, capture_output=True, text=True, check=False)
    if downloaded.returncode:
        pytest.skip(f"{wheel} cannot be downloaded: {downloaded.stderr.strip().splitlines()[-1]}")
    (file,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(file).extractall(tmp_path)
    source = tmp_path / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{version.partition('.')[0]}"
        link = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run([*link, str(source)], check=True)
    printed = subprocess.run(
        [sys.executable, tensorrt_names.__file__, "tensorrt_bindings"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.splitlines() == committed(WHEELS[version])
