"""Commands that end well, fail, hang, or are killed, with all that they started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.gpu.process import Ended, run_limited


def ended(tmp_path: Path, code: str, limit: float = 30.0) -> Ended:
    return run_limited(
        [sys.executable, "-c", code],
        log=tmp_path / "a.log",
        limit=limit,
        folder=tmp_path,
        environment=os.environ,
    )


def test_what_a_command_found_is_its_result(tmp_path: Path) -> None:
    code = "import sys; print('result: 1'); print('result: two'); print('late', file=sys.stderr)"
    found = ended(tmp_path, code)
    assert (found.status, found.result, found.last, found.reason) == (0, "two", "late", "")
    assert "result: 1\nresult: two\n" in (tmp_path / "a.log").read_text()


def test_a_crash_says_its_last_line(tmp_path: Path) -> None:
    found = ended(tmp_path, "print('result: half'); raise RuntimeError('CUDA error')")
    assert (found.status, found.result) == (1, "half")
    assert found.reason == "RuntimeError: CUDA error"
    assert ended(tmp_path, "raise SystemExit('error: no GPU')").reason == "no GPU"
    assert ended(tmp_path, "raise SystemExit(3)").reason == "exit status 3, without a word"


def test_a_kill_is_named(tmp_path: Path) -> None:
    found = ended(tmp_path, "import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    assert found.status == -9
    assert found.reason == "killed by SIGKILL; last line: so far"


@pytest.mark.parametrize("deaf", [False, True])
def test_at_the_limit_all_that_it_started_ends(tmp_path: Path, deaf: bool) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        f"if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    start = time.monotonic()
    found = ended(tmp_path, code, limit=2.0)
    assert time.monotonic() - start < 12
    assert found.status is None
    assert found.reason.startswith("stopped after ")
    assert found.reason.endswith(f" s, its share of the time; last line: {found.last}")
    child = int(found.last)
    for _ in range(100):  # init takes the orphan up in its own time
        if not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child runs on")


def test_of_a_long_log_the_end_is_kept(tmp_path: Path) -> None:
    found = ended(tmp_path, "print('result: early')\nfor i in range(9999): print('line', i)")
    assert (found.result, found.last) == ("early", "line 9998")
    assert (tmp_path / "a.log").stat().st_size == 32 * 1024
