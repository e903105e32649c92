"""What the registry of runtimes decides: the key that rows are kept under, and the colours."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

import pytest

from artifact.runtimes import base
from artifact.runtimes.base import RuntimeSpec, list_runtimes, runtime_packages
from bench.experiment import this_machine
from bench.latency.charts import colour, colours

NEW = RuntimeSpec(
    name="new", loader="new:load", formats=("onnx",), packages=("pytest",), install=""
)


def test_every_runtime_is_in_the_key_of_a_machine() -> None:
    versions = this_machine().versions
    for spec in base.RUNTIMES.values():
        installed = []
        for package in spec.packages:
            with suppress(importlib.metadata.PackageNotFoundError):
                installed.append(importlib.metadata.version(package))
        assert spec.packages, spec.name
        assert set(installed[:1]) <= set(versions.values()), spec.name


def test_another_version_of_a_new_runtime_is_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = this_machine()
    monkeypatch.setitem(base.RUNTIMES, "new", NEW)
    with_new = this_machine()
    assert with_new.versions == {**before.versions, "pytest": pytest.__version__}
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99" if name == "pytest" else version(name)
    )
    assert len({before.key, with_new.key, this_machine().key}) == 3


def test_of_two_onnx_runtimes_the_one_for_gpus_comes_first() -> None:
    packages = runtime_packages()
    assert packages.index("onnxruntime-gpu") < packages.index("onnxruntime")


def test_every_runtime_has_a_colour_of_its_own() -> None:
    assert list(colours()) == list_runtimes()
    assert len(set(colours().values())) == len(list_runtimes())


def test_no_runtime_vanishes_from_the_legend() -> None:
    drawn = [{"runtime": name} for name in ("gone", *list_runtimes())]
    scale = colour(drawn).to_dict()["scale"]
    assert scale["domain"] == [*list_runtimes(), "gone"]
    assert len(scale["range"]) == len(drawn)
