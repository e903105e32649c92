"""A copy of this repository, for the commands of its pages to run in as they are written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pages import ENVIRONMENT, ROOT


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the tracked files beside the same virtual environment."""
    if shutil.which("curl") is None:
        pytest.skip("the README's commands need curl")
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip("not the environment of make setup: run these with make test")
    copy = tmp_path_factory.mktemp("house")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)  # with times: make would set up again otherwise
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def run(command: str, house: Path, *, allowed: tuple[int, ...] = (0,)) -> str:
    """Returns what ``command`` printed on stdout; on another status than ``allowed``, shows all."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=house,
        env={**ENVIRONMENT, "BENTOML_HOME": str(house / "bentoml")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def left_over(house: Path) -> list[str]:
    """Returns the command lines of processes that still run in ``house``."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if str(process.info["cwd"] or "").startswith(str(house)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found
