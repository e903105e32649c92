"""The step that builds, loads and runs an engine of each TensorRT flavour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from artifact.artifact import ARTIFACTS, Artifact
from artifact.fingerprint import EngineMismatch
from artifact.golden import check_golden, golden_pixels
from artifact.runtimes.base import Runtime, load_runtime
from artifact.runtimes.tensorrt_flavours import FLAVOURS, import_flavour
from bench.gpu.process import RESULT, Budget
from bench.measure.timing import Plan, measure
from core.conditions import now
from core.errors import UserError, in_words
from core.record_file import write_rows
from report.format import ms

FILE = "engines.jsonl"
MODEL = "mobilenet_v3_large"
_PLAN = Plan(count=100, seconds=0.0, limit=1.0, rounds=5)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The result for an fp16 engine of one TensorRT flavour.

    Attributes:
        flavour: name of the flavour.
        version: version of its Python module; None if not installed.
        built: whether the engine was built.
        p50: median latency in seconds at batch size 1, host to host; None if it does not run.
        reason: why it was not built or does not run; None if it runs.
        refusal: TensorRT's own error for an engine that was built for other GPUs; None if it was
            not loaded.
        when: UTC date and time, ISO 8601.
    """

    flavour: str
    version: str | None = None
    built: bool = False
    p50: float | None = None
    reason: str | None = None
    refusal: str | None = None
    when: str


def run(folder: Path, budget: Budget, *, model: str = MODEL) -> str:
    """Runs the step, writes a row per flavour into ``folder``, and returns all in one line."""
    rows: list[Engine] = []
    flavours: list[str] = sorted(FLAVOURS, reverse=True)
    for flavour in flavours:
        last = None
        for last in _try(flavour, model):
            write_rows(folder / FILE, [*rows, last])  # the next attempt may crash the process
            print(f"{RESULT}{'; '.join(map(_in_short, [*rows, last]))}")
        assert last is not None, "there is a row for each flavour"
        rows.append(last)
    return "; ".join(map(_in_short, rows))


def _in_short(row: Engine) -> str:
    name = row.flavour.replace("_", "-")
    if row.p50:
        return f"{name}: p50 {ms(row.p50)} ms"
    said = f" (the library: {row.refusal})" if row.refusal else ""
    return f"{name}: {(row.reason or '').removeprefix(f'{name}: ')}{said}"


def _try(flavour: str, model: str) -> Iterator[Engine]:
    """Yields the row of a flavour, also on errors; for a mismatch a second one with ``refusal``."""
    row = Engine(flavour=flavour, when=now())
    try:
        row = replace(row, version=str(import_flavour(flavour).__version__))
        artifact = _build(flavour, model)
        row = replace(row, built=True)
        with load_runtime(flavour.replace("_", "-"), artifact) as runtime:
            yield replace(row, p50=_p50(runtime, artifact))
    except EngineMismatch as error:
        yield replace(row, reason=error.wrong)
        yield replace(row, reason=error.wrong, refusal=_refusal(flavour, artifact))
    except Exception as error:  # native libraries raise any type
        yield replace(row, reason=in_words(error))


def _build(flavour: str, model: str) -> Artifact:
    """Builds an fp16 artifact of ``model`` with random weights and loads it.

    Raises:
        UserError: it cannot be built; the message says why.
    """
    from export.build import Options, build_artifacts
    from export.network import load_network

    target, network = f"{flavour}-fp16", load_network(model, None, "random")
    (outcome,) = build_artifacts(network, (target,), Options(batches=(1,)))
    if outcome.artifact is None:
        raise UserError(outcome.reason or f"{target}: no reason given")
    return Artifact.load(ARTIFACTS / f"{network.model}-{network.data}" / target)


def _refusal(flavour: str, artifact: Artifact) -> str:
    """Returns TensorRT's own error for an engine that our fingerprint check rejects."""
    from artifact.runtimes.tensorrt_engine import EngineRuntime

    name = flavour.replace("_", "-")
    try:
        with EngineRuntime(name, artifact, artifact.model_file.read_bytes()) as runtime:
            check_golden(runtime, artifact)
    except Exception as error:
        return in_words(error)
    return "none: it loads the engine and answers rightly"


def _p50(runtime: Runtime, artifact: Artifact) -> float:
    check_golden(runtime, artifact)
    pixels = golden_pixels(artifact, 1)
    return measure({"call": partial(runtime, pixels)}, _PLAN)["call"].p50
