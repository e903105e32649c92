from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.load.http_client import Address
from bench.load.loops import Load
from bench.load.wrk import find_wrk, wrk_loop
from core.errors import UserError

ADDRESS = Address("::1", 3000, "/predict")
REPORT = {
    **{"good": 4, "requests": 4, "microseconds": 2_000_000},
    **{"refused": 0, "closed": 0, "late": 0, "latencies": [1000, 1500, 2000, 9000]},
}


@pytest.fixture
def wrk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a program of that name on PATH, where nothing else is; ``body`` is Python."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(body: str) -> str:
        path = tmp_path / "wrk"
        path.write_text(f"#!{os.path.realpath(sys.executable)}\nimport json, sys\n{body}\n")
        path.chmod(0o755)
        found = find_wrk()
        assert found == str(path)
        return found

    return make


def run(program: str) -> Load:
    return wrk_loop(program, ADDRESS, [b"one\x00", b"two"], connections=8, seconds=1.2)


def test_it_is_found_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_wrk() is None


def test_it_is_called_with_our_requests_and_every_latency_is_read(
    wrk: Callable[[str], str], tmp_path: Path
) -> None:
    noted = tmp_path / "noted"
    program = wrk(
        "files = sys.argv[sys.argv.index('--') + 1:]\n"
        "sent = [open(name, 'rb').read().decode() for name in files]\n"
        "script = open(sys.argv[sys.argv.index('-s') + 1]).read()\n"
        f"json.dump([sys.argv[1:], sent, script], open({str(noted)!r}, 'w'))\n"
        f"print('Running 2s test @ http://...\\n  some words\\n' + {json.dumps(REPORT)!r})"
    )
    load = run(program)
    assert load == Load(
        statuses={"200": 4}, throughput=2.0, latencies=(0.001, 0.0015, 0.002, 0.009)
    )
    arguments, sent, script = json.loads(noted.read_text())
    options = ["-t1", "-c8", "-d2s", "--timeout", "30s", "-s", "script.lua", ADDRESS.url, "--"]
    assert ADDRESS.url == "http://[::1]:3000/predict"
    assert arguments[: len(options)] == options
    assert sent == ["one\x00", "two"]
    assert all(f'"{name}": ' in script for name in REPORT)


@pytest.mark.parametrize(
    ("changes", "statuses", "throughput"),
    [
        ({"good": 3}, {"200": 3, "another status": 1}, 1.5),
        ({"closed": 2, "late": 1}, {"200": 4, "closed": 2, "no answer": 1}, 2.0),
    ],
)
def test_errors_are_counted(
    wrk: Callable[[str], str], changes: dict[str, Any], statuses: Any, throughput: float
) -> None:
    load = run(wrk(f"print({json.dumps({**REPORT, **changes})!r})"))
    assert (load.statuses, load.throughput) == (statuses, throughput)
    assert bool(load.latencies) == ("good" not in changes)  # good ones cannot be told from others


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("sys.exit('unable to connect')", "wrk ends with 1 and says 'unable to connect'; measure"),
        ("print('Running')", "wrk ends with 0 and says 'Running'; measure without it: --no-wrk"),
        ("print('{}')", "wrk: good: Field required; measure without it: --no-wrk"),
    ],
)
def test_what_fails_is_one_line(wrk: Callable[[str], str], body: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        run(wrk(body))
