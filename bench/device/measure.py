"""Measures artifacts on a phone: copies them to it, and interleaves their turns in rounds.

A turn is a separate process on the phone. A candidate that cannot run gets a row with the reason.
If the phone is lost, earlier measurements are kept.
"""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from artifact.artifact import Artifact
from artifact.golden import GoldenError, relative_error
from artifact.records import Logits
from bench.device.adb import FOLDER, Adb, DryAdb, PhoneFailed, PhoneLost
from bench.device.phone import QUESTIONS, STATE, Cluster, Cooling, read_state
from bench.device.record import Turn
from bench.device.tools import BIN, TOOLS, DeviceTool, Job, Times, read_times
from bench.experiment import progress_bars
from bench.latency.measure import blank, describe
from bench.latency.plan import Grid, find_artifacts
from bench.latency.record import Row, Sweep
from bench.measure.timing import Latency, Plan, shuffled
from core.errors import UserError, in_words
from core.files import sha256, write_whole
from core.machine import Machine

Machines = Mapping[Cluster, Machine]  # the machine of the rows of each cluster

_CLEAR = f"rm -rf {FOLDER}"
_FIRST = (5, 5)  # untimed and timed calls of a candidate's first turn, which is not recorded
_WARM_SECONDS = 0.5  # of untimed calls in a turn, as the process is new and cores were idle
_SLACK = 60.0  # time limit of a turn in seconds, plus ten times the expected time of its calls


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What to measure on a phone.

    Attributes:
        grid: selects the artifacts; its batches and threads are not used.
        batches: batch sizes.
        threads: numbers of CPU threads inside a call.
        tools: format to the path of its tool.
        libraries: shared libraries that the tools load.
    """

    grid: Grid
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    tools: Mapping[str, Path]
    libraries: tuple[Path, ...] = ()

    def folders(self) -> list[Path]:
        """Returns the folders of the artifacts in formats for which there is a tool.

        Raises:
            UserError: there are none.
        """
        found = [p for p in find_artifacts(self.grid) if p.name.rpartition("-")[0] in TOOLS]
        if not found:
            raise UserError(
                f"{self.grid.artifacts}: no artifacts for a phone here; it takes the formats "
                f"{', '.join(TOOLS)}: export some with --formats phone"
            )
        return found

    def versions(self) -> dict[str, str]:
        """Returns tool to 12 digits of its digest, as the tools do not print their versions."""
        return {TOOLS[form].name: sha256(path)[:12] for form, path in self.tools.items()}


@dataclass(kw_only=True, slots=True)
class Candidate:
    """A row that is being measured, with its turns so far."""

    row: Row
    cluster: Cluster
    tool: DeviceTool
    artifact: Artifact | None = None  # None if it cannot run; the row then has the reason
    seconds: float = 0.0  # of a call in the first turn
    calls: int = 0  # number of calls in the first turn
    compared: bool = False  # whether the phone's logits were compared with the golden batch
    turns: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def remote(self) -> str:
        """Returns the candidate's folder on the phone."""
        return f"{FOLDER}/{self.row.folder}/{self.row.batch}"

    def job(self, warm: int, calls: int, *, answers: bool = False) -> Job:
        """Returns the job of a turn with ``warm`` untimed and ``calls`` timed calls."""
        assert self.artifact is not None, "what cannot run has no turns"
        return Job(
            artifact=self.artifact,
            folder=self.remote,
            mask=self.cluster.mask,
            batch=self.row.batch,
            threads=self.row.threads,
            warm=warm,
            calls=calls,
            answers=answers,
        )

    def share(self, plan: Plan) -> tuple[int, int]:
        """Returns the numbers of untimed and timed calls of a turn, its share of ``plan``."""
        count = math.ceil(plan.count / plan.rounds)
        least = max(count, math.ceil(plan.seconds / plan.rounds / self.seconds))
        most = int(plan.limit / plan.rounds / self.seconds)
        return max(1, math.ceil(_WARM_SECONDS / self.seconds)), max(1, min(least, most))

    def fail(self, error: BaseException) -> None:
        """Records an error as the row's reason; the candidate has no more turns."""
        self.row = self.row.with_latency("host", in_words(error))
        self.artifact = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements on a phone: name of a cluster to its sweep, and all turns."""

    sweeps: Mapping[str, Sweep]
    turns: Sequence[Turn]


def candidates(wish: Wish, machines: Machines, when: str) -> list[Candidate]:
    """Returns a candidate for each artifact, cluster, number of threads and batch size."""
    found = []
    for folder in wish.folders():
        try:
            artifact: Artifact | None = Artifact.load(folder)
        except UserError as error:
            artifact, reason = None, str(error)
        for cluster, machine in machines.items():
            row = blank(folder, wish.grid, machine.key, when)
            if artifact:
                row = describe(row, artifact)
            tool = TOOLS[row.format]
            for threads in wish.threads:
                for batch in wish.batches:
                    here = replace(row, runtime=tool.runtime, threads=threads, batch=batch)
                    why = reason if artifact is None else _why_not(here, wish, tool, cluster)
                    found.append(
                        Candidate(
                            row=here if why is None else here.with_latency("host", why),
                            cluster=cluster,
                            tool=tool,
                            artifact=artifact if why is None else None,
                        )
                    )
    return found


def _why_not(row: Row, wish: Wish, tool: DeviceTool, cluster: Cluster) -> str | None:
    """Returns why a row cannot be measured, or None."""
    if row.format not in wish.tools:
        return f"no {tool.name} was given: {tool.flag} PATH"
    if cluster.cores and row.threads > len(cluster.cores):
        return f"{row.threads} threads do not fit on {cluster}"
    if tool.one_image and row.batch > 1:
        return f"{tool.name} runs one image a call"
    return None


def measure_device(
    adb: Adb,
    machines: Machines,
    found: Sequence[Candidate],
    wish: Wish,
    plan: Plan,
    cooling: Cooling,
    *,
    save: Callable[[Measured], object],
) -> Measured:
    """Measures all candidates, interleaved in rounds of random order.

    Args:
        adb: the phone.
        machines: cluster to the machine of its rows.
        found: the candidates.
        wish: the tools and their libraries.
        plan: number of calls and rounds.
        cooling: condition for the start of a turn.
        save: called after each round, and before PhoneLost is raised, with the measurements so far.

    Raises:
        PhoneLost: the phone no longer responds; earlier measurements have been saved.
    """
    before = {cluster.name: read_state(adb, cluster) for cluster in machines}
    turns: list[Turn] = []

    def measured() -> Measured:
        after = {**before, **{turn.cores: turn.after for turn in turns}}
        sweeps = {
            cluster.name: Sweep(
                machine=machine,
                plan=plan,
                rows=tuple(_row(each) for each in found if each.cluster is cluster),
                before=before[cluster.name].conditions(),
                after=after[cluster.name].conditions(),
            )
            for cluster, machine in machines.items()
        }
        return Measured(sweeps, tuple(turns))

    try:
        with progress_bars() as bar, tempfile.TemporaryDirectory() as staging:
            _copy(adb, found, wish, Path(staging), bar("Copying", len(found)))
            tick = bar("Warming up", len(found))
            for each in found:
                _attempt(each, partial(_first_turn, adb, each, Path(staging)))
                tick()
            tick = bar("Measuring", len(found) * plan.rounds)
            for number, order in enumerate(shuffled(list(range(len(found))), plan)):
                for each in (found[index] for index in order):
                    _attempt(each, partial(_turn, adb, each, plan, cooling, number, turns))
                    tick()
                save(measured())
    except PhoneLost as error:
        for each in found:
            if each.artifact and not each.turns:
                each.fail(error)
        save(measured())
        raise
    finally:
        with suppress(PhoneFailed, PhoneLost):
            adb.shell(_CLEAR)
    return measured()


def _row(each: Candidate) -> Row:
    """Returns the row of a candidate with its turns so far."""
    if each.artifact is None:
        return each.row
    if not each.turns:
        return each.row.with_latency("host", "its first turn was not reached")
    return each.row.with_latency("host", Latency(turns=tuple(each.turns), warmup=each.calls))


def _attempt(each: Candidate, work: Callable[[], object]) -> None:
    """Runs ``work`` if the candidate can still run; an error becomes its reason."""
    if each.artifact is None:
        return
    try:
        work()
    except PhoneLost:
        raise
    except UserError as error:
        each.fail(error)


def rehearse(adb: DryAdb, found: Sequence[Candidate], wish: Wish, staging: Path) -> None:
    """Prints the command lines of a dry run, with the first turn of each candidate.

    Args:
        adb: prints the command lines.
        found: the candidates.
        wish: the tools and their libraries.
        staging: folder for the generated input files.
    """
    for question in QUESTIONS:
        adb.shell(question)
    _copy(adb, found, wish, staging, lambda: None)
    for each in found:
        if each.artifact:
            adb.shell(each.tool.command(each.job(*_FIRST, answers=True)))
            if each.tool.answers:
                adb.pull(f"{each.remote}/{each.tool.answers[1]}", staging / each.tool.answers[1])
            adb.shell(STATE)
    adb.shell(_CLEAR)


def _copy(
    adb: Adb,
    found: Sequence[Candidate],
    wish: Wish,
    staging: Path,
    tick: Callable[[], object],
) -> None:
    """Copies tools, libraries and models to the phone; an error becomes the candidates' reason."""
    for line in (_CLEAR, f"mkdir -p {BIN}"):
        adb.shell(line)
    for form, path in wish.tools.items():
        users = [each for each in found if each.row.format == form and each.artifact]
        try:
            for file in (path, *wish.libraries) if users else ():
                adb.push(file, f"{BIN}/{TOOLS[form].name if file == path else file.name}")
            if users:
                adb.shell(f"chmod 755 {BIN}/{TOOLS[form].name}")
        except PhoneFailed as error:
            for each in users:
                each.fail(error)
    copied: dict[str, BaseException | None] = {}
    for each in found:
        if each.artifact and each.remote not in copied:
            copied[each.remote] = _copy_model(adb, each, each.artifact, staging)
        if each.artifact and (why := copied[each.remote]):
            each.fail(why)
        tick()


def _copy_model(
    adb: Adb, each: Candidate, artifact: Artifact, staging: Path
) -> BaseException | None:
    """Copies the input files of a candidate to the phone; returns the error, or None."""
    made: set[str] = set()
    try:
        for name, content in each.tool.files(artifact, each.row.batch).items():
            if isinstance(content, bytes):
                local = staging / each.row.folder / str(each.row.batch) / name
                write_whole(local, content)
            else:
                local = content
            remote = f"{each.remote}/{name}"
            if (parent := remote.rpartition("/")[0]) not in made:
                adb.shell(f"mkdir -p {shlex.quote(parent)}")
                made.add(parent)
            adb.push(local, remote)
    except PhoneFailed as error:
        return error
    return None


def _first_turn(adb: Adb, each: Candidate, staging: Path) -> None:
    """Runs a candidate's first turn: estimates the time of a call and checks the logits.

    Raises:
        GoldenError: the phone's logits do not match the golden batch.
    """
    times = _run(adb, each, *_FIRST, answers=True)
    each.seconds, each.calls = min(times.samples), sum(_FIRST)
    if each.tool.answers is None or each.artifact is None:
        return
    local = staging / each.tool.answers[1]
    try:
        adb.pull(f"{each.remote}/{each.tool.answers[1]}", local)
    except PhoneFailed:  # older builds of the tool do not write outputs
        return
    _compare(each.tool, each.artifact, each.row.batch, np.fromfile(local, dtype="<f4"))
    each.compared = True


def _compare(tool: DeviceTool, artifact: Artifact, batch: int, logits: Logits) -> None:
    """Raises GoldenError unless ``logits`` match those of ``batch`` golden images."""
    _, golden = artifact.golden()
    golden = golden[np.arange(batch) % len(golden)]
    what = None
    if logits.size != golden.size:
        what = f"{logits.size} logits come out, not {golden.size}"
    elif not np.isfinite(logits).all():
        what = "logits that are not finite"
    elif (far := relative_error(logits.reshape(golden.shape), golden)) > (
        limit := artifact.limits.golden_error
    ):
        what = f"a relative error of {far:.2g}, over {limit:g}"
    if what:
        raise GoldenError(f"{tool.name} on the phone does not reproduce the golden batch: {what}")


def _turn(
    adb: Adb, each: Candidate, plan: Plan, cooling: Cooling, number: int, turns: list[Turn]
) -> None:
    """Runs the turn of a candidate in round ``number`` and appends it to ``turns``."""
    before, waited = cooling.wait(adb, each.cluster)
    times = _run(adb, each, *each.share(plan))
    after = read_state(adb, each.cluster)
    each.turns.append(times.samples)
    each.row = replace(each.row, averaged=times.averaged)
    turns.append(
        Turn(
            when=each.row.when,
            key=each.row.key,
            cores=each.cluster.name,
            round=number,
            before=before,
            after=after,
            waited=round(waited, 1),
            cool=cooling.allows(before),
            compared=each.compared,
        )
    )


def _run(adb: Adb, each: Candidate, warm: int, calls: int, *, answers: bool = False) -> Times:
    job = each.job(warm, calls, answers=answers)
    try:
        text = adb.shell(
            each.tool.command(job), patience=_SLACK + 10 * each.seconds * (warm + calls)
        )
    except PhoneFailed as error:
        raise PhoneFailed(f"{each.tool.name}: {error}") from None
    return read_times(each.tool, text, job)
