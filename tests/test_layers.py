"""Imports go down only: models <- training <- export <- {bench, serving}."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "models": {"models"},
    "training": {"models", "training"},
    "export": {"models", "training", "export"},
    "bench": {"models", "training", "export", "bench"},
    "serving": {"models", "export", "serving"},
}
TORCH_FREE = (
    "bench.load.in_process",
    "bench.load.record",
    "bench.latency.pareto_section",
    "core.machine",
    "artifact.artifact",
    "artifact.choice",
    "artifact.golden",
    "artifact.runtimes.base",
    "artifact.runtimes.ort",
    "artifact.runtimes.ort_cuda",
    "bench.latency.timing_scopes",
    "artifact.runtimes.tensorrt_engine",
    "models.cost",
    "core.preprocess",
    "models.published",
    "serving.settings",
    "training.data",
    "training.datasets",
    "training.folder",
    "training.recipe",
    "training.recipes",
    "training.summary.write",
)


def imported(file: Path) -> Iterator[str]:
    """Yields the full names of what a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_down_only(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    upward = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported(file)
        if name.partition(".")[0] in MAY_IMPORT.keys() - MAY_IMPORT[package]
    ]
    assert upward == []


def test_no_file_is_named_like_a_package_it_uses() -> None:
    taken = {"onnx", "tensorrt", "tensorrt_rtx", "torch", "torchvision", "bentoml", "openvino"}
    names = {file.stem for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}
    assert names & taken == set()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'torchvision'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
