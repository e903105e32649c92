"""What docs/phone.md shows for a shell is what the command runs."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.artifact import Artifact
from bench.device.adb import FOLDER
from bench.device.command import Device
from bench.device.tools import TOOLS, Job

PAGE = Path(__file__).parents[3] / "docs/phone.md"


SERIAL, MASK = "1A2B3C4D5E6F", "c0"  # as the page sets them
OTHERS = [tool.name for tool in TOOLS.values() if tool.name != "benchmark_model"]


def plain(line: str) -> str:
    """Returns a command line with one space where there are several."""
    return " ".join(line.split())


def shown() -> list[str]:
    """Returns what a shell runs of adb when the commands of the page are pasted."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "adb() { printf 'adb %s\\0' \"$*\"; }\n" + "".join(blocks)
    ran = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    return [plain(line) for line in ran.stdout.split("\0") if line]


def test_it_shows_every_command_line(
    make_phone_artifact: Callable[..., Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_phone_artifact("litert-fp32", "efficientnet_lite0", data="imagenet")
    monkeypatch.chdir(tmp_path)
    Device(dry_run=True, adb=(SERIAL,), benchmark_model=Path("benchmark_model"))()
    printed = capsys.readouterr().out.replace("=1,8,8,3", "=1,224,224,3").replace("MASK_BIG", MASK)
    lines = {plain(" ".join(shlex.split(line))) for line in printed.splitlines()}
    assert lines == {line for line in shown() if not any(name in line for name in OTHERS)}


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "model.onnx"), ("ncnn", "model.param"), ("executorch", "model.pte")]
)
def test_it_shows_the_turns_of_other_tools(
    make_phone_artifact: Callable[..., Artifact], form: str, name: str
) -> None:
    job = Job(
        artifact=make_phone_artifact("onnx-fp32"),
        folder=f"{FOLDER}/efficientnet_lite0-imagenet/{form}-fp32/1",
        mask=MASK,
        batch=1,
        threads=1,
        warm=5,
        calls=5,
    )
    command = TOOLS[form].command(job).replace("model.onnx", name).replace("8,8,3", "224,224,3")
    assert plain(f"adb -s {SERIAL} shell {command}") in shown()
