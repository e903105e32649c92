"""Servers that must not start, and what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENTOML = ("-m", "bentoml", "serve", "serving.service:Pocketnets")


def refused(*arguments: str, environment: dict[str, str]) -> str:
    """Returns what stderr holds of a start that was refused, with status 1."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.strip()
