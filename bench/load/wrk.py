"""Closed loops with wrk, an HTTP client written in C, if it is installed.

It takes less CPU time than our own client. A script makes it send the same requests and print all
latencies, as its own report lacks p95. https://github.com/wg/wrk/blob/master/SCRIPTING
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.http_client import Address
from bench.load.loops import Load
from core.errors import UserError
from core.record_file import parse

_TIMEOUT_S = 30  # of a request, as in our own client
# Seconds of a turn. wrk does not count responses that are pending at the end, and does not exclude
# the start: with 32 connections, turns of 1 s measured 1 to 5 % less than turns of 4 s.
LONG_ENOUGH = 3.0
_REMEDY = "measure without it: --no-wrk"
# Sample i of n, sorted, is the percentile 100 * (i - 0.5) / n.
_SCRIPT = """
local requests, number = {}, 0
good = 0

function init(arguments)
  for index, path in ipairs(arguments) do
    local file = assert(io.open(path, "rb"))
    requests[index] = file:read("*a")
    file:close()
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function response(status)
  if status == 200 then good = good + 1 end
end

function setup(thread)
  worker = thread
end

function done(summary, latency)
  local samples = {}
  for rank = 1, summary.requests do
    samples[rank] = string.format("%d", latency:percentile(100 * (rank - 0.5) / summary.requests))
  end
  local errors = summary.errors
  io.write(string.format(
    '{"good": %d, "requests": %d, "microseconds": %d, "refused": %d, "closed": %d, "late": %d, ' ..
    '"latencies": [%s]}\\n',
    worker:get("good"), summary.requests, summary.duration, errors.connect,
    errors.read + errors.write, errors.timeout, table.concat(samples, ",")))
end
"""


@dataclass(frozen=True, kw_only=True)
class _Report:
    """The output of the script: counts, and times in microseconds."""

    good: int
    requests: int
    microseconds: int
    refused: int
    closed: int
    late: int
    latencies: list[int]


def find_wrk() -> str | None:
    """Returns the path of wrk, or None if it is not installed."""
    return shutil.which("wrk")


def wrk_loop(
    program: str, address: Address, requests: Sequence[bytes], *, connections: int, seconds: float
) -> Load:
    """Runs a closed loop with wrk; see :func:`bench.load.loops.closed_loop`.

    ``seconds`` is rounded up to whole seconds. wrk does not distinguish latencies by status, so
    there are none if any status is not 200.

    Raises:
        UserError: wrk fails, or its output cannot be understood.
    """
    whole = max(1, math.ceil(seconds))
    options = f"-t1 -c{connections} -d{whole}s --timeout {_TIMEOUT_S}s -s script.lua".split()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "script.lua").write_text(_SCRIPT)
        for number, request in enumerate(requests):
            (folder / f"request{number}").write_bytes(request)
        files = [f"request{number}" for number in range(len(requests))]
        command = [program, *options, address.url, "--", *files]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=whole + 2 * _TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"wrk does not end; {_REMEDY}") from None
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not last.startswith("{"):
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise UserError(f"wrk ends with {done.returncode} and says {said[:200]!a}; {_REMEDY}")
    report = parse(_Report, last.encode(), "wrk", remedy=_REMEDY)
    statuses = {
        "200": report.good,
        "another status": report.requests - report.good,
        "refused": report.refused,
        "closed": report.closed,
        "no answer": report.late,
    }
    return Load(
        statuses={status: count for status, count in statuses.items() if count},
        throughput=report.good / (report.microseconds / 1e6),
        latencies=tuple(value / 1e6 for value in report.latencies)
        if report.good == report.requests
        else (),
    )
