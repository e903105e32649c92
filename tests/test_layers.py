"""Imports go down only, in no circle, and five packages never import torch."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from pocketnets.command import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"core", "report", "artifact"}
MAY_IMPORT = {
    "core": {"core"},
    "report": {"core", "report"},
    "artifact": {"core", "artifact"},
    "models": {"core", "models"},
    "training": {"core", "report", "models", "training"},
    "export": {*GROUND, "models", "training", "export"},
    "bench": {*GROUND, "models", "training", "export", "bench"},
    "serving": {"core", "artifact", "serving"},
    "predict": {*GROUND, "models", "training", "predict"},
}
TORCH_FREE = ("core", "report", "artifact", "serving", "predict")
TORCH = {"torch", "torchvision", "timm", "pytorch_lightning", "torchmetrics"}
# Outside those packages, what commands import that start quickly or fork.
LIGHT = (
    "training.__main__",
    "pocketnets",
    "pocketnets.command",
    "bench.latency.command",
    "bench.load.command",
    "bench.experiment",
    "bench.latency.pareto",
    "predict.evaluate",
    "predict.evaluation_report",
    "models.cost",
    "models.published",
    "training.data",
    "training.datasets",
    "training.folder",
    "training.recipe",
    "training.recipes",
    "training.summary.write",
)


def files_of(package: str) -> list[Path]:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    return files


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path, modules: Collection[str] = ()) -> Iterator[str]:
    """Yields the full names of what a file imports, at its top or inside a function.

    What ``from package import name`` brings is ``package.name`` where ``modules`` holds that.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            package = node.module or ""
            for alias in node.names:
                inner = f"{package}.{alias.name}"
                yield inner if inner in modules else package


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_down_only(package: str) -> None:
    upward = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files_of(package)
        for name in imported(file)
        if name.partition(".")[0] in MAY_IMPORT.keys() - MAY_IMPORT[package]
    ]
    assert upward == []


def test_nothing_imports_the_package_above_all() -> None:
    files = {file for package in MAY_IMPORT for file in files_of(package)}
    names = {(file, name.partition(".")[0]) for file in files for name in imported(file)}
    assert [file for file, name in names if name == "pocketnets"] == []


def test_every_command_is_where_the_list_of_commands_has_it() -> None:
    targets = [target for each in COMMANDS.values() for target in (each.flags, each.main) if target]
    for target in targets:
        module, _, name = target.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}, target


def test_no_file_is_named_like_a_package_it_uses() -> None:
    taken = {"onnx", "tensorrt", "tensorrt_rtx", "torch", "torchvision", "bentoml", "openvino"}
    names = {file.stem for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}
    assert names & taken == set()


def test_the_map_in_the_docs_says_the_same() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \| (yes|no) \|$", page, flags=re.MULTILINE)
    assert {name: set(re.findall(r"\w+", may)) | {name} for name, may, _ in rows} == MAY_IMPORT
    assert {name for name, _, torch in rows if torch == "no"} == set(TORCH_FREE)


def test_the_picture_of_the_map_says_the_same() -> None:
    picture = (ROOT / "docs/packages.svg").read_text()
    arrows = re.findall(r'data-from="(\w+)" data-to="(\w+)"', picture)
    graph = {name: [to for start, to in arrows if start == name] for name in MAY_IMPORT}
    reached: dict[str, set[str]] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        reached[name] = {name}.union(*(reached[below] for below in graph[name]))
    assert reached == MAY_IMPORT


@pytest.mark.parametrize("package", TORCH_FREE)
def test_never_names_torch(package: str) -> None:
    names = {
        (file.name, name.partition(".")[0]) for file in files_of(package) for name in imported(file)
    }
    assert [(file, name) for file, name in names if name in TORCH] == []


@pytest.mark.parametrize("module", LIGHT)
def test_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'torchvision'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_no_file_imports_in_a_circle() -> None:
    modules = {name_of(file): file for package in MAY_IMPORT for file in files_of(package)}
    graph = {
        name: {found for found in imported(file, modules) if found != name} & modules.keys()
        for name, file in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle
