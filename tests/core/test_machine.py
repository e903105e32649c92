from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys

import pytest

from core.machine import this_machine

LIBRARIES = ("onnxruntime-gpu", "onnxruntime", "tensorrt-rtx")


def test_this_machine_is_described_without_torch() -> None:
    code = (
        "import sys; from core.machine import this_machine; m = this_machine([]); "
        "assert m.cpu and m.cores >= 1 and m.kernel; print(sorted(m.versions)); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout


def test_key_stays_until_a_fact_changes() -> None:
    machine = this_machine(LIBRARIES)
    newer = dataclasses.replace(machine, versions={**machine.versions, "onnxruntime": "99"})
    assert this_machine(LIBRARIES).key == machine.key
    assert newer.key != machine.key


def test_of_two_onnx_runtimes_the_one_for_gpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime-gpu": "2.0", "onnxruntime": "1.0", "numpy": "3.0", "tensorrt-rtx": "4"}

    def version(package: str) -> str:
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[package]

    monkeypatch.setattr("importlib.metadata.version", version)
    named = this_machine(LIBRARIES).versions
    assert named.pop("python")
    assert named == {"onnxruntime": "2.0", "numpy": "3.0", "tensorrt_rtx": "4"}
