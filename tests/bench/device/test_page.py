"""What docs/phone.md shows is what the command runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.artifact import Artifact
from bench.device.adb import FOLDER
from bench.device.command import Device
from bench.device.tools import TOOLS, Job

PAGE = Path(__file__).parents[3] / "docs/phone.md"


def shown() -> list[str]:
    """Returns the command lines of the page, each in one line."""
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\n +", " ", block).splitlines()]


def test_it_shows_every_command_line(
    make_phone_artifact: Callable[..., Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_phone_artifact("litert-fp32", "mobilenet_v2", data="imagenet")
    monkeypatch.chdir(tmp_path)
    Device(dry_run=True, benchmark_model=Path("benchmark_model"))()
    printed = capsys.readouterr().out.replace("=1,8,8,3", "=1,224,224,3")
    printed = printed.replace("MASK_BIG", "MASK").splitlines()
    assert set(printed) == {line for line in shown() if line.startswith("adb")}


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "model.onnx"), ("ncnn", "model.param"), ("executorch", "model.pte")]
)
def test_it_shows_the_turns_of_other_tools(
    make_phone_artifact: Callable[..., Artifact], form: str, name: str
) -> None:
    job = Job(
        artifact=make_phone_artifact("onnx-fp32"),
        folder=f"{FOLDER}/mobilenet_v2-imagenet/{form}-fp32/1",
        mask="MASK",
        batch=1,
        threads=1,
        warm=5,
        calls=5,
    )
    command = TOOLS[form].command(job).replace("model.onnx", name).replace("8,8,3", "224,224,3")
    assert command in shown()
