"""What ``pocketnets doctor`` finds, on this machine and on others made up here."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from artifact.formats import FORMATS
from artifact.runtimes import base
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable, require_runtime
from core import machine
from core.errors import UserError
from core.machine import adds_in_32_bits, instruction_sets
from core.registry import Registry
from pocketnets.doctor import PACKAGE, Doctor, Findings, Part, examine


def lacking(name: str) -> None:
    raise RuntimeUnavailable(f"{name}: there is no flux; pip install capacitor")


def broken(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)  # stands for what no one expects


def by_name(parts: tuple[Part, ...]) -> dict[str, Part]:
    return {part.name: part for part in parts}


def test_every_runtime_format_and_extra_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert Doctor(json=True)() == 0  # the tests run in it: torch and ONNX Runtime are here
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["runtimes"]] == list(RUNTIMES)
    assert [row["name"] for row in found["formats"]] == list(FORMATS)
    extras = importlib.metadata.metadata("pocketnets").get_all("Provides-Extra")
    assert [row["name"] for row in found["extras"]] == ["(required)", *extras]
    lacks = {row["name"]: row["lacks"] for row in found["runtimes"] + found["formats"]}
    assert lacks["torch"] is lacks["ort-cpu"] is lacks["onnx"] is None
    for name in RUNTIMES:
        if lacks[name]:
            with pytest.raises(RuntimeUnavailable, match=f"^{name}: "):
                require_runtime(name)


def test_a_runtime_that_is_not_here_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu, onnx = RUNTIMES["ort-cpu"], FORMATS["onnx"]
    # Another table, not another content of ours: tests after this one read that in its order.
    others: Registry[base.RuntimeSpec] = Registry("runtime")
    for name in ("lacking", "broken"):
        others.register(dataclasses.replace(cpu, name=name, require=f"{__name__}:{name}"))
    monkeypatch.setattr(base, "RUNTIMES", others)
    refused = dataclasses.replace(onnx, name="refused", require=f"{__name__}:lacking")
    monkeypatch.setitem(FORMATS, "refused", refused)
    found = examine()
    runtimes = by_name(found.runtimes)
    assert runtimes["lacking"].lacks == "there is no flux; pip install capacitor"
    assert "PackageNotFoundError" in str(runtimes["broken"].lacks)
    assert runtimes["lacking"].detail.startswith("onnxruntime ")
    refusal = by_name(found.formats)["refused"]
    assert refusal.detail == "refused-fp32 refused-fp16 refused-int8"
    assert refusal.lacks == "there is no flux; pip install capacitor"
    assert Doctor()() == 1  # nothing can run
    assert "there is no flux" in capsys.readouterr().out


def test_our_own_bug_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    takes_a_path = dataclasses.replace(RUNTIMES["ort-cpu"], require="core.files:sha256")
    monkeypatch.setitem(RUNTIMES, "bug", takes_a_path)
    with pytest.raises(AttributeError):
        examine()


def distribution(*requires: str, extras: tuple[str, ...] = ()) -> Any:
    """Returns the metadata of a package that requires these."""
    metadata = Message()
    for extra in extras:
        metadata["Provides-Extra"] = extra
    return SimpleNamespace(requires=list(requires), metadata=metadata)


def test_extras_are_those_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    package = distribution(
        "numpy>=2.0",
        "pillow>=999.0",
        "no-such-package; sys_platform == 'nowhere'",
        'numpy>=1.0; extra == "here"',
        'no-such-package>=1; extra == "gone"',
        extras=("here", "gone"),
    )
    others = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata,
        "distribution",
        lambda name: package if name == PACKAGE else others(name),
    )
    required, here, gone = examine().extras
    assert required.detail == "2 packages"
    pillow = importlib.metadata.version("pillow")
    assert required.lacks == f"pillow is {pillow}, not >=999.0; pip install ."
    assert (here.name, here.detail, here.lacks) == ("here", "numpy", None)
    assert gone.lacks == "no-such-package is not installed; pip install '.[gone]'"


def test_a_package_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(UserError, match="pip install"):
        examine()


@pytest.fixture
def advice(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns what gives the advice on a machine of two cores, with these variables."""
    monkeypatch.setattr("core.machine.usable_cores", lambda: 2)
    monkeypatch.setattr("serving.settings.usable_cores", lambda: 2)
    monkeypatch.setattr("pocketnets.doctor._lacks", lambda require, name: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def give(**variables: str) -> tuple[str, ...]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return examine().advice

    return give


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"POCKETNETS_THREADS": "3"}, "3 threads on 2 usable cores"),
        ({"POCKETNETS_THREADS": "2", "POCKETNETS_WORKERS": "2"}, "4 threads on 2 usable cores"),
        ({"POCKETNETS_THREADS": "zero"}, "POCKETNETS_THREADS"),
        ({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1"),
    ],
)
def test_what_costs_time_is_told(advice: Any, variables: dict[str, str], words: str) -> None:
    (sentence,) = advice(**variables)
    assert words in sentence


@pytest.mark.parametrize(
    "variables",
    [{}, {"OMP_NUM_THREADS": "2"}, {"POCKETNETS_CALL_THREADS": "2"}, {"POCKETNETS_WORKERS": "2"}],
)
def test_nothing_is_told_where_nothing_costs_time(advice: Any, variables: dict[str, str]) -> None:
    assert advice(**variables) == ()


def test_a_governor_that_saves_power_is_told(
    advice: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "scaling_governor"
    monkeypatch.setattr(machine, "_GOVERNOR", file)
    file.write_text("powersave\n")
    (sentence,) = advice()
    assert "powersave" in sentence
    file.write_text("performance\n")
    assert advice() == ()


def test_the_machine_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = examine()
    there = dataclasses.replace(found.machine, cores=3, memory=16 << 30, gpu="A GPU", driver="580")
    container = dataclasses.replace(
        found,
        machine=there,
        cpu_quota=3.5,
        memory_limit=1 << 30,
        instruction_sets=("avx2", "amx_int8"),
        advice=(),
    )
    monkeypatch.setattr("pocketnets.doctor.examine", lambda: container)
    Doctor()()
    out = capsys.readouterr().out
    for words in ("3 usable cores", "3.5", "avx2 amx_int8", "1.0 GiB", "A GPU, driver 580"):
        assert words in out
    assert isinstance(container, Findings)


@pytest.mark.parametrize(
    ("line", "sets"),
    [
        (
            "flags\t\t: fpu vme avx avx2 avx512_vnni amx_tile amx_int8",
            "avx avx2 avx512_vnni amx_int8",
        ),
        ("Features\t: fp asimd asimdhp crc32 asimddp i8mm", "asimd asimdhp asimddp i8mm"),
        ("flags\t\t: fpu vme sse sse2", ""),
        ("isa\t\t: rv64imafdc", ""),
    ],
)
def test_instruction_sets_by_the_kernel_s_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, sets: str
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(machine, "_CPUINFO", file)
    assert instruction_sets() == tuple(sets.split())
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    assert adds_in_32_bits() == ("vnni" in sets)
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert adds_in_32_bits()
