"""``python -m bench load``: measures a server under load."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from bench.experiment import print_section, progress_bars, this_machine, write_page
from bench.load.http_client import check_loopback
from bench.load.in_process import Limit
from bench.load.measure import (
    ask_server,
    check_requests,
    find_artifact,
    make_requests,
    measure_load,
)
from bench.load.plan import QUICK, SIZES, LoadPlan, photos, read_images
from bench.load.record import NAME, RECORDS, SCHEMA, LoadHeader
from bench.load.sections import load_section
from bench.load.wrk import LONG_ENOUGH, find_wrk
from core.cli import results
from core.conditions import conditions


@dataclass(frozen=True, kw_only=True)
class Load:
    """Measure a running server on this machine, and the same work without HTTP for comparison."""

    url: str = "http://127.0.0.1:3000/predict"
    """URL to post images to, on this machine. The token in POCKETNETS_TOKEN is sent, if set."""
    images: Path | None = None
    """An image, or a folder of them; if left out, crops of two photos at 500x375 and 1920x1080."""
    artifacts: Path = Path("artifacts")
    """Folder in which to find the server's artifact, with which the limit is measured."""
    artifact: Path | None = None
    """Folder of the server's artifact, if it is not in --artifacts."""
    rounds: int | None = None
    """Turns of each closed loop; 5 if left out."""
    seconds: float | None = None
    """Length of such a turn in seconds; if left out 0.8, and 3 with wrk."""
    quick: bool = False
    """A first look in 20 s: raw bytes only, fewer and shorter turns."""
    wrk: bool = True
    """Use wrk for the closed loops, if it is installed; otherwise our own client."""
    out: Path = Path("reports")
    """Folder for load.jsonl and load.md."""

    def __call__(self) -> int:
        """Prints throughput, latency and statuses; returns 1 unless every status was 200."""
        address = check_loopback(self.url)
        wrk = find_wrk() if self.wrk else None
        plan = self.plan(wrk)
        images = (
            {f"{width}x{height}": photos(width, height) for width, height in SIZES}
            if self.images is None
            else {str(self.images): read_images(self.images)}
        )
        token = os.environ.get("POCKETNETS_TOKEN")
        served = ask_server(address, token)
        artifact = find_artifact(served, self.artifacts, self.artifact)
        requests = make_requests(address, images, plan.forms, token)
        check_requests(address, requests)
        before = conditions()
        with Limit(artifact.path, served.runtime, images) as limit, progress_bars() as bar:
            tick = bar("Measuring", plan.count(len(images)))
            turns = measure_load(address, requests, limit, plan, wrk=wrk, tick=tick)
        header = LoadHeader(
            schema=SCHEMA,
            served=served,
            client="wrk" if wrk else "ours",
            plan=plan,
            machine=this_machine(),
            before=before,
            after=conditions(),
        )
        RECORDS.write(self.out / f"{NAME}.jsonl", header, turns.all)
        section = load_section(header, turns)
        page = write_page(section, self.out / f"{NAME}.md")
        results().print(section.title)
        print_section(section)
        results().print(section.notes[-1])
        results().print(page)
        return 1 if any(turn.load.errors for turn in turns.all) else 0

    def plan(self, wrk: str | None) -> LoadPlan:
        """Returns the plan; ``wrk`` is the program, or None for our own client."""
        plan = QUICK if self.quick else LoadPlan()
        if self.rounds is not None:
            plan = dataclasses.replace(plan, rounds=self.rounds)
        if self.seconds is not None:
            plan = dataclasses.replace(plan, seconds=self.seconds)
        elif wrk and not self.quick:
            plan = dataclasses.replace(plan, seconds=LONG_ENOUGH)
        return plan
