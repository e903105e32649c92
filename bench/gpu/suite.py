"""The step that runs the tests marked gpu."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.gpu.budget import Budget
from core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_MARK = "pytest.mark.gpu"


def run(folder: Path, budget: Budget, *, root: Path = ROOT) -> str:
    """Returns the last line of pytest, which prints the tests that were left out, too.

    Raises:
        UserError: there is no such test, one of them fails, or all of them are left out.
    """
    # Only these files: others may need packages that a machine with a GPU lacks.
    tests = root / "tests"
    files = [file for file in sorted(tests.rglob("test_*.py")) if _MARK in file.read_text()]
    if not files:
        raise UserError(f"{tests}: no test here is marked gpu; is this the project's whole folder?")
    options = ("-m", "gpu", "-q", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    print(done.stdout)
    lines = [line.strip("= ") for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1] if lines else "pytest said nothing"
    if done.returncode:
        raise UserError(f"pytest ends with {done.returncode}: {last}; see tests.log")
    if " passed" not in f" {last}":
        raise UserError(f"no test ran: {last}")
    return last
