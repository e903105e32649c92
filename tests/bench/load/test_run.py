"""``python -m bench load``: what is measured, in what order, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bench.load.command
from artifact.artifact import Artifact
from bench.latency.record import Sweep
from bench.load.command import Load as Command
from bench.load.http_client import Address
from bench.load.in_process import Limit
from bench.load.loops import Load
from bench.load.measure import check_requests, make_requests, measure_load
from bench.load.plan import QUICK, Form, LoadPlan
from bench.load.record import SCHEMA, LoadHeader, Served, Turn, Turns
from bench.load.sections import TARGETS, load_section
from bench.load.wrk import LONG_ENOUGH
from core.errors import UserError
from core.preprocess import encode_png

Artifacts = Callable[..., Artifact]
Serve = Callable[..., Address]
Reply = Callable[..., bytes]
Headers = Callable[[LoadPlan], LoadHeader]

TINY = LoadPlan(
    rounds=3, seconds=0.1, connections=(1, 3), open_seconds=0.1, shares=(0.5, 0.7), lone_seconds=0.1
)
SERVED = Served(model="tiny", data="toy", precision="fp32", runtime="ort-cpu", sha256s={})


@pytest.fixture
def header(make_sweep: Callable[..., Sweep]) -> Headers:
    """Makes the header of turns that were sent by our own client on a made-up machine."""
    sweep = make_sweep()

    def make(plan: LoadPlan) -> LoadHeader:
        return LoadHeader(
            schema=SCHEMA,
            served=SERVED,
            client="ours",
            plan=plan,
            machine=sweep.machine,
            before=sweep.before,
            after=sweep.after,
        )

    return make


class Fixed(Limit):
    """A limit of so many images per second that is not measured."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def throughput(self, name: str, seconds: float) -> float:
        self.asked.append(name)
        return 1e6


def test_every_case_has_its_turns_in_every_round(serve: Serve, reply: Reply) -> None:
    async def handler(head: bytes, body: bytes) -> bytes:
        return reply()

    address, limit, ticks = serve(handler), Fixed(), []
    requests = make_requests(address, {"a": [b"1", b"2"], "b": [b"3"]}, TINY.forms)
    turns = measure_load(address, requests, limit, TINY, tick=lambda: ticks.append(0))
    assert len(ticks) == len(turns.all) == TINY.count(images=2)
    assert [turn.what for turn in turns.all[:3]] == ["before", "burst", "after"]
    closed = Counter(
        (turn.images, turn.form, turn.connections) for turn in turns.all if turn.what == "closed"
    )
    assert len(closed) == 2 * 2 * 2
    assert set(closed.values()) == {TINY.rounds}
    assert Counter(limit.asked) == {"a": TINY.rounds, "b": TINY.rounds}
    rounds = [turn.round for turn in turns.all if turn.what in ("closed", "in process")]
    assert rounds == sorted(rounds)
    opened = {(turn.arrivals, turn.share) for turn in turns.all if turn.what == "open"}
    assert opened == {(a, s) for a in ("fixed", "poisson") for s in (0.5, 0.7)}
    assert all(turn.load.errors == 0 for turn in turns.all)


def test_what_is_not_answered_200_is_refused_before_it_is_measured(
    serve: Serve, reply: Reply
) -> None:
    async def handler(head: bytes, body: bytes) -> bytes | None:
        if b"none" in body:
            return None
        return reply(400, b'{"error": "not_an_image\n"}') if b"bad" in body else reply()

    address = serve(handler)
    requests = make_requests(address, {"mine": [b"good", b"bad"]}, ("raw",))
    line = (
        r"^/predict: image 2 of mine, raw, is answered with 400: '{\"error\": \"not_an_image\\n\"}'"
    )
    with pytest.raises(UserError, match=line):
        check_requests(address, requests)
    requests = make_requests(address, {"mine": [b"none"]}, ("multipart",))
    with pytest.raises(UserError, match=r"no answer \(closed\)"):
        check_requests(address, requests)


@pytest.mark.parametrize("wrong", [{"rounds": 2}, {"seconds": 0}, {"lone_seconds": -1}])
def test_a_plan_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="at least 3 rounds and more than 0 s"):
        LoadPlan(**wrong)


def test_plans_are_bounded() -> None:
    def seconds(plan: LoadPlan) -> float:
        opened = plan.open_rounds * len(plan.arrivals) * len(plan.shares)
        rounds = plan.count(images=2) - 3 - opened
        return 3 * plan.lone_seconds + rounds * plan.seconds + opened * plan.open_seconds

    assert seconds(LoadPlan()) < 120
    assert seconds(QUICK) < 18


def turn(what: str, throughput: float = 1.0, ms: float = 10.0, **changes: Any) -> Turn:
    statuses = changes.pop("statuses", {"200": 4})
    tail = changes.pop("tail", 1.0)
    load = Load(
        statuses=statuses, throughput=throughput, latencies=(ms / 1e3,) * 99 + (tail * ms / 1e3,)
    )
    return Turn(what=what, images="500x375", load=load, **changes)  # type: ignore[arg-type]


def closed(throughputs: list[float], form: Form, connections: int) -> list[Turn]:
    return [
        turn("closed", value, form=form, connections=connections, round=round)
        for round, value in enumerate(throughputs)
    ]


def opened(arrivals: str, share: float, tails: list[float]) -> list[Turn]:
    return [
        turn("open", arrivals=arrivals, share=share, tail=tail, round=round)
        for round, tail in enumerate(tails)
    ]


def test_what_is_said_follows_from_the_figures(header: Headers) -> None:
    plan = LoadPlan(rounds=3, shares=(0.5, 0.7))
    turns = Turns(
        (
            turn("before", ms=10.0),
            turn("burst"),
            turn("after", ms=13.0),
            *(turn("in process", 100.0, round=round, statuses={}) for round in range(3)),
            *closed([50.0, 50.0, 50.0], "raw", 1),
            *closed([94.0, 95.0, 96.0], "raw", 8),
            *closed([94.0, 95.0, 96.0], "raw", 32),
            *closed([80.0, 80.0, 70.0], "multipart", 8),
            *closed([90.0, 90.0, 90.0], "multipart", 32),
            *closed([40.0, 40.0, 40.0], "multipart", 1),
            *opened("fixed", 0.5, [9.0] * 3),
            *opened("fixed", 0.7, [300.0, 9.0]),
            turn("open", arrivals="fixed", share=0.7, tail=300.0, statuses={"429": 1}, round=2),
            *opened("poisson", 0.5, [200.0] * 3),
            *opened("poisson", 0.7, [300.0] * 3),
        )
    )
    section = load_section(header(plan), turns)
    assert section.title == "tiny (toy, fp32, ort-cpu) under load"
    said = "\n".join(section.sentences)
    for sentence in (
        "500x375, raw, 8 connections: 0.95 (0.94 to 0.96) of the in-process limit; "
        "at least 0.93 is asked: met.",
        "500x375, raw, 32 connections: 0.95 (0.94 to 0.96) of the in-process limit; "
        "at least 0.95 is asked: undecided.",
        "500x375, multipart, 8 connections: 0.80 (0.70 to 0.80) of the in-process limit; "
        "at least 0.90 is asked: missed.",
        "At 70 % load, fixed arrivals: p99 is 3.99 (1.08 to 3.99) times p50, and 1.00 times in the "
        "best server there can be; at most 2 is asked: undecided.",
        "At 70 % load, poisson arrivals: p99 is 3.99 (3.99 to 3.99) times p50, and 3.34 times in "
        "the best server there can be; at most 2 is out of reach.",
        "A lone client: p50 10.0 ms before a burst of 32 connections, 13.0 ms after it, "
        "1.30 times; at most 1.2 is asked: missed.",
    ):
        assert sentence in said
    assert "1920x1080" not in said
    assert said.endswith("Answers: 200 x 128, 429 x 1.")
    limits, loops, queued = section.tables
    assert limits.rows == (("500x375", "100.0", "100.0", "100.0"),)
    assert [row[:5] for row in loops.rows] == [
        ("500x375", "raw", "1", "50.0", "0.50 (0.50 to 0.50)"),
        ("500x375", "raw", "8", "95.0", "0.95 (0.94 to 0.96)"),
        ("500x375", "raw", "32", "95.0", "0.95 (0.94 to 0.96)"),
        ("500x375", "multipart", "1", "40.0", "0.40 (0.40 to 0.40)"),
        ("500x375", "multipart", "8", "80.0", "0.80 (0.70 to 0.80)"),
        ("500x375", "multipart", "32", "90.0", "0.90 (0.90 to 0.90)"),
    ]
    assert [row[:3] for row in queued.rows] == [
        ("fixed", "50 %", "2.7"),
        ("fixed", "70 %", "2.0"),
        ("poisson", "50 %", "2.7"),
        ("poisson", "70 %", "2.7"),
    ]
    assert queued.rows[1][-2:] == ("3.99 (1.08 to 3.99)", "200 x 8, 429 x 1")


def test_every_target_is_of_something_that_is_measured() -> None:
    plan = LoadPlan()
    for images, form, connections in TARGETS:
        assert images in {"500x375", "1920x1080"}
        assert form in plan.forms
        assert connections in plan.connections


def test_no_good_answer_is_said(header: Headers) -> None:
    plan = LoadPlan(rounds=3, connections=(1,), forms=("raw",), arrivals=("fixed",), shares=(0.7,))
    none = Load(statuses={"503": 2}, throughput=0.0, latencies=())
    cases: list[dict[str, Any]] = [
        {"what": "before"},
        {"what": "after"},
        {"what": "closed", "form": "raw", "connections": 1},
        {"what": "open", "arrivals": "fixed", "share": 0.7},
    ]
    turns = Turns(
        (turn("in process", 9.0), *(Turn(images="500x375", load=none, **case) for case in cases))
    )
    section = load_section(header(plan), turns)
    assert "A lone client had no good answer" in section.sentences[0]
    assert section.tables[1].rows[0][4:] == ("0.00 (0.00 to 0.00)", "-", "-", "-", "503 x 2")
    assert section.tables[2].rows[0][3:] == ("-", "-", "-", "503 x 2")


@pytest.mark.parametrize("failing", [False, True])
def test_the_command_measures_and_keeps_every_turn(
    tmp_path: Path,
    serve: Serve,
    reply: Reply,
    make_artifact: Artifacts,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: bool,
) -> None:
    artifact = make_artifact()
    pixels, _ = artifact.golden()
    image = tmp_path / "image.png"
    image.write_bytes(encode_png(Image.fromarray(pixels[0])))
    facts = {**dataclasses.asdict(SERVED), "sha256s": artifact.sha256s}
    asked = 0

    async def handler(head: bytes, body: bytes) -> bytes:
        nonlocal asked
        asked += 1
        if head.startswith(b"GET /model"):
            return reply(200, json.dumps(facts).encode())
        assert b"Authorization: Bearer key" in head
        return reply(503 if failing and asked == 10 else 200)

    monkeypatch.setenv("POCKETNETS_TOKEN", "key")
    monkeypatch.setattr(bench.load.command, "QUICK", dataclasses.replace(TINY, forms=("raw",)))
    address = serve(handler)
    url, out = f"http://127.0.0.1:{address.port}/predict", tmp_path / "reports"
    command = Command(
        url=url, images=image, artifacts=tmp_path / "artifacts", quick=True, wrk=False, out=out
    )
    assert command() == (1 if failing else 0)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "tiny (toy, fp32, ort-cpu) under load"
    assert ("503 x 1" in printed) == failing
    page = (out / "load.md").read_text()
    assert page.startswith("# tiny (toy, fp32, ort-cpu) under load\n")
    assert "- Measured on " in page
    header, *rows = map(json.loads, (out / "load.jsonl").read_text().splitlines())
    assert header["schema"] == SCHEMA
    assert header.keys() == {field.name for field in dataclasses.fields(LoadHeader)}
    assert len(rows) == dataclasses.replace(TINY, forms=("raw",)).count(images=1)
    good = [row["load"]["statuses"].get("200", 0) for row in rows]
    assert good == [len(row["load"]["latencies"]) for row in rows]


def test_turns_are_longer_with_wrk_unless_told_otherwise() -> None:
    ours = Command().plan(None)
    assert ours == LoadPlan()
    assert Command().plan("wrk").seconds == LONG_ENOUGH > ours.seconds
    assert Command(quick=True).plan("wrk") == QUICK
    told = Command(rounds=7, seconds=0.5).plan("wrk")
    assert (told.rounds, told.seconds) == (7, 0.5)
