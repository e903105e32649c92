"""Servers beside each other: how they are started and ended, their turns, and what is said."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import bench.studies.servers
from artifact.artifact import Artifact
from bench.experiment import this_machine
from bench.load.http_client import Address
from bench.load.loops import Load
from bench.load.measure import make_requests
from bench.load.plan import Form
from bench.load.record import Turn, Turns
from bench.studies.command import Study as Command
from bench.studies.plain import PORT, VARIABLE, Classifier
from bench.studies.servers import (
    CONNECTIONS,
    CONTENDERS,
    IMAGES,
    ROOT,
    TARGETS,
    Contender,
    NotStarted,
    ServersHeader,
    run_servers,
    servers_section,
    started,
    take_turns,
)
from core.errors import UserError

Artifacts = Callable[..., Artifact]
Serve = Callable[..., Address]
Reply = Callable[..., bytes]

# Answers 200 to everything, on the port of the environment, with a child that waits for nothing.
SERVER = f"""
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(STATUS)
        self.send_header("Content-Length", "0")
        self.end_headers()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, os.environ["{VARIABLE}"], file=open(sys.argv[1], "w"), flush=True)
port = int(os.environ["{PORT}"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def contender(code: str, *arguments: str, name: str = "other") -> Contender:
    return Contender(
        name=name,
        forms=("multipart",),
        package="bentoml",
        extra=None,
        command=lambda artifact, port: ["-c", code, *arguments],
    )


def test_a_server_ends_with_all_its_processes(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    code = SERVER.replace("STATUS", "200")
    with started(contender(code, str(noted)), tmp_path, b"image") as address:
        child, artifact = noted.read_text().split()
        assert artifact == str(tmp_path)
        assert address.path == "/predict"
        assert psutil.pid_exists(int(child))
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(child)) and time.monotonic() < deadline:
        if psutil.Process(int(child)).status() == psutil.STATUS_ZOMBIE:
            break  # ended; who adopts it may take a while to notice
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(int(child))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('what went wrong'); raise SystemExit(3)", r"\b3; .*'what went wrong'"),
        (SERVER.replace("STATUS", "415"), r"\b415; "),
        ("import time; time.sleep(600)", r"\b200 within 1 s, .*refused"),
        (SERVER.replace("STATUS", "503"), r"\b200 within 1 s, .*503"),
    ],
)
def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    if "within" in reason:
        monkeypatch.setattr(bench.studies.servers, "_START_S", 1)
        if "503" in reason:
            monkeypatch.setattr(bench.studies.servers, "_START_S", 3)
            reason = reason.replace("1 s", "3 s")
    with (
        pytest.raises(NotStarted, match=reason),
        started(contender(code, str(tmp_path / "noted")), tmp_path, b"image"),
    ):
        pytest.fail("it did not answer")


def test_what_is_not_installed_is_named() -> None:
    ours, bentoml, litserve = CONTENDERS
    assert ours.missing is None
    assert bentoml.missing is None
    gone = dataclasses.replace(litserve, package="no_such_package")
    assert re.match(r"no_such_package .*pip install '\.\[servers\]'$", str(gone.missing))
    assert {bentoml.name, litserve.name} == TARGETS.keys()


def test_the_plain_services_answer_as_the_artifact_does(
    make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact()
    monkeypatch.setenv(VARIABLE, str(artifact.path))
    pixels, logits = artifact.golden()
    classify = Classifier()
    for image, expected in zip(pixels, logits, strict=True):
        best, *_ = found = classify(Image.fromarray(image))["predictions"]
        assert best["index"] == expected.argmax()
        assert best["label"] == artifact.labels[best["index"]]
        assert sum(each["score"] for each in found) == pytest.approx(1)


def test_every_server_has_its_turns_in_every_round(serve: Serve, reply: Reply) -> None:
    async def handler(head: bytes, body: bytes) -> bytes:
        return reply()

    address, files = serve(handler), {IMAGES: [b"1", b"2"]}
    forms: tuple[Form, ...] = ("multipart", "raw")
    made = make_requests(address, files, forms)
    requests = {("ours", form): (address, made[IMAGES, form]) for form in forms}
    ticks: list[int] = []
    turns = take_turns(requests, rounds=3, seconds=0.05, tick=lambda: ticks.append(0))
    cases = Counter((turn.server, turn.form, turn.connections) for turn in turns.all)
    assert len(cases) == 2 * len(CONNECTIONS)
    assert set(cases.values()) == {3}
    assert len(ticks) == len(turns.all)
    rounds = [turn.round for turn in turns.all]
    assert rounds == sorted(rounds)
    assert all(turn.load.errors == 0 for turn in turns.all)


def turns_of(server: str, form: Form, throughputs: list[float]) -> list[Turn]:
    return [
        Turn(
            what="closed",
            server=server,
            images=IMAGES,
            form=form,
            connections=connections,
            round=round,
            load=Load(statuses={"200": 2}, throughput=value, latencies=(0.01, 0.02)),
        )
        for connections in CONNECTIONS
        for round, value in enumerate(throughputs)
    ]


HEADER = ServersHeader(artifact="tiny", missing={}, seconds=1.0, rounds=3, machine=this_machine())


def test_what_is_said_follows_from_the_figures() -> None:
    turns = Turns(
        (
            *turns_of("ours", "multipart", [120.0, 60.0, 110.0]),
            *turns_of("ours", "raw", [130.0, 70.0, 120.0]),
            *turns_of("BentoML", "multipart", [100.0, 50.0, 100.0]),
        )
    )
    missing = {"LitServe": "litserve is not installed; pip install '.[servers]'"}
    section = servers_section(dataclasses.replace(HEADER, missing=missing), turns)
    *compared, absent = section.sentences
    for connections, sentence in zip((8, 32), compared, strict=True):
        assert re.search(
            rf"^{connections} .*1\.20 \(1\.10 to 1\.20\).*BentoML.*1\.15 .*\bundecided\.$", sentence
        )
    assert re.search(rf"^LitServe .*{re.escape(missing['LitServe'])}", absent)
    (table,) = section.tables
    assert [row[:6] for row in table.rows] == [
        ("BentoML", "multipart", "8", "100.0", "50.0", "100.0"),
        ("BentoML", "multipart", "32", "100.0", "50.0", "100.0"),
        ("ours", "multipart", "8", "110.0", "60.0", "120.0"),
        ("ours", "multipart", "32", "110.0", "60.0", "120.0"),
        ("ours", "raw", "8", "120.0", "70.0", "130.0"),
        ("ours", "raw", "32", "120.0", "70.0", "130.0"),
        ("LitServe", "-", "-", "-", "-", "-"),
    ]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[0][-1] == "200 x 6"


def test_the_study_measures_what_starts_and_names_the_rest(
    tmp_path: Path,
    make_artifact: Artifacts,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, noted = SERVER.replace("STATUS", "200"), str(tmp_path / "noted")
    contenders = (
        contender(good, noted, name="ours"),
        contender("raise SystemExit('broken')", name="BentoML"),
        dataclasses.replace(contender(good, noted, name="LitServe"), package="no_such_package"),
    )
    monkeypatch.setattr(bench.studies.servers, "CONTENDERS", contenders)
    monkeypatch.setattr(bench.studies.servers, "photos", lambda width, height: [b"a", b"b"])
    out = tmp_path / "reports"
    Command(name="servers", artifact=make_artifact().path, rounds=3, seconds=0.05, out=out)()
    printed = capsys.readouterr().out
    assert re.search(r"^BentoML .*\b1; .*'broken'", printed, re.MULTILINE)
    assert re.search(r"^LitServe .*no_such_package", printed, re.MULTILINE)
    assert printed.endswith(f"{out / 'study-servers.md'}\n")
    header, *rows = map(json.loads, (out / "study-servers.jsonl").read_text().splitlines())
    assert header["missing"].keys() == {"BentoML", "LitServe"}
    assert len(rows) == 3 * len(CONNECTIONS)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"rounds": 2}, r"rounds are 2, seconds 1\.5: .*\b3 .*\b0\b"),
        ({"seconds": 0}, r"rounds are 7, seconds 0: .*\b3 .*\b0\b"),
    ],
)
def test_too_little_to_compare_is_refused(
    tmp_path: Path, make_artifact: Artifacts, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        run_servers(make_artifact().path, tmp_path, **options)


def test_our_own_server_must_start(
    tmp_path: Path, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (contender("raise SystemExit('broken')", name="ours"),)
    monkeypatch.setattr(bench.studies.servers, "CONTENDERS", broken)
    with pytest.raises(NotStarted, match=r"status 1\b"):
        run_servers(make_artifact().path, tmp_path)


@pytest.mark.slow
def test_all_real_servers_answer(tmp_path: Path, make_artifact: Artifacts) -> None:
    command = [sys.executable, "-m", "bench", "study", "servers", "--rounds", "3", "--seconds", "1"]
    options = ["--artifact", str(make_artifact().path), "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    header, *rows = map(json.loads, (tmp_path / "study-servers.jsonl").read_text().splitlines())
    absent = {each.name for each in CONTENDERS if each.missing is not None}
    assert header["missing"].keys() == absent, done.stdout
    assert {row["server"] for row in rows} == {each.name for each in CONTENDERS} - absent
    assert all(row["load"]["statuses"].keys() == {"200"} for row in rows)
