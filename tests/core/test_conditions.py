from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

import pytest

import core.conditions
from core.conditions import conditions


def test_the_state_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    state = conditions()
    assert datetime.fromisoformat(state.when).tzinfo is not None
    assert state.gpu_mhz is None
    if hasattr(os, "getloadavg"):
        assert state.load_average is not None
        assert min(state.load_average) >= 0


def test_clocks_are_those_the_system_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("cpu MHz\t\t: 2000.5\nmodel name: x\ncpu MHz\t\t: 3000.5\n")
    monkeypatch.setattr(core.conditions, "_CPUINFO", cpuinfo)
    assert conditions().cpu_mhz == pytest.approx(2500.5)
    cpuinfo.write_text("processor: 0\n")
    assert conditions().cpu_mhz is None


@pytest.mark.parametrize(
    ("script", "mhz"), [("echo 1980", 1980.0), ("echo '[N/A]'", None), ("exit 9", None)]
)
def test_a_gpus_clock_is_nvidias_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, mhz: float | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert conditions().gpu_mhz == mhz
