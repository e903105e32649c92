"""``python -m export run|list|show|verify|push|explain``: build, list, show and push artifacts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from artifact.artifact import ARTIFACTS, Artifact
from artifact.formats import default_names
from artifact.store import stored_artifacts
from core import cli
from core.errors import UserError
from core.files import check_folder
from export.elsewhere import Elsewhere
from export.explain.command import Explain
from export.push.command import Push
from export.table import calibration, gate_table, outcome_table, shelf_table, show_tables
from export.triton import write_models
from models.registry import DEFAULT_NETWORKS

if TYPE_CHECKING:
    from artifact.records import WeightBits
    from export.build import Outcome
    from export.jobs import Job

ALL = "all"
Exported = list[tuple[str, "list[Outcome]"]]  # networks with the outcomes of their targets
Target = Literal["avx2", "vnni", "arm", "this"]
Folder = tyro.conf.Positional[Path]
_FORMATS = (
    "Such as onnx-fp32 litert-int8; cpu: those of which one is the fastest on a CPU; phone: all "
    "that phones run; all: every one. Left out: the "
    f"default ones ({', '.join(default_names())})."
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Export a network to artifacts in artifacts/<model>-<data>/, each checked against torch."""

    model: str
    """Registry name of the network; all: the twelve default ones, resuming an earlier export."""
    data: str | None = None
    """Data set or folder whose run is exported; default: published ImageNet weights. With
    --checkpoint: labelled images for int8 calibration and for measuring accuracy."""
    fold: Annotated[str | None, tyro.conf.arg(metavar="IofK")] = None
    """With --data: export the run of one fold of --folds, such as 2of5."""
    weights: Literal["auto", "imagenet", "random"] = "auto"
    """auto: those of the run on --data. random: useful for latency only."""
    formats: Annotated[tuple[str, ...], tyro.conf.arg(help=_FORMATS)] = ()
    qat: bool = False
    """Take int8 from the run of --recipe-name qat, or qat_imagenet, that began with these weights;
    artifacts are in artifacts/<model>-<data>-qat/."""
    max_batch: int = 32
    """Largest batch size of the artifacts."""
    max_drop: float | None = None
    """Largest loss of top-1 against torch, in points; default: 0.1, and 1.0 for int8."""
    batches: tuple[int, ...] = ()
    """Batch sizes for which an engine gets a static profile, besides the dynamic one."""
    target: Target = "avx2"
    """CPUs that int8 is for. avx2: any, weights of 7 bits; vnni and arm: x86 with VNNI, and ARM, 8
    bits, which are more accurate; this: the best for this machine."""
    license: str | None = None
    """Licence of the artifacts for their model card: an identifier such as apache-2.0."""
    fresh: bool = False
    """With all: export again even where up-to-date artifacts exist."""
    workers: int | None = None
    """With all: number of networks exported in parallel; default: one per core."""
    triton_repository: Path | None = None
    """Model repository of Triton Inference Server, to which the ONNX graphs and TensorRT engines
    are added, each as a model with its config.pbtxt."""
    elsewhere: Annotated[Elsewhere, tyro.conf.OmitArgPrefixes] = field(default_factory=Elsewhere)

    def __call__(self) -> int:
        """Exports, prints a row per artifact, and returns 1 if any of them failed.

        A format that this machine cannot build is a failure only if it was asked for by its name.
        """
        from core.cores import usable_cores
        from export.build import DEFAULT_TARGETS, Options, targets_of
        from export.hub import resolve_model
        from export.jobs import Job

        model, elsewhere = resolve_model(self.model, self.elsewhere)
        if model != self.model:
            return replace(self, model=model, elsewhere=elsewhere)()
        self._check()
        if self.triton_repository is not None:
            check_folder(self.triton_repository)
        job = Job(
            model=self.model,
            data=self.data,
            weights=self.weights,
            size=self.elsewhere.size,
            channels=self.elsewhere.channels,
            qat=self.qat,
            fold=self.fold,
            targets=targets_of(self.formats) or DEFAULT_TARGETS,
            options=Options(
                max_batch=self.max_batch,
                max_drop=None if self.max_drop is None else self.max_drop / 100,
                weight_bits=self._weight_bits(),
                batches=self.batches,
                resume=self.model == ALL and not self.fresh,
                license=self.license,
            ),
        )
        if self.model == ALL:
            exported = _export_all(job, self.workers or usable_cores())
        else:
            exported = _export_one(job, self.elsewhere)
        outcomes = [outcome for _, outcomes in exported for outcome in outcomes]
        cli.results().print(outcome_table(exported))
        for outcome in outcomes:
            if outcome.artifact and outcome.artifact.quantization and self.model != ALL:
                cli.results().print(f"{outcome.target}: {calibration(outcome.artifact)}")
        if any(outcome.artifact for outcome in outcomes):
            print(ARTIFACTS if self.model == ALL else ARTIFACTS / exported[0][0])
        if self.triton_repository is not None:
            made = [outcome.artifact for outcome in outcomes if outcome.artifact]
            for folder in write_models(made, self.triton_repository):
                print(folder)
        missing = [outcome for outcome in outcomes if outcome.artifact is None]
        asked = [outcome for outcome in missing if outcome.target in self.formats]
        return int(bool(asked) or any(outcome.failed for outcome in missing))

    def _weight_bits(self) -> WeightBits:
        """Returns the bits of int8 weights for the target.

        Raises:
            UserError: this CPU cannot prove them.
        """
        from core.machine import adds_in_32_bits, cpu_name

        if self.target == "this":
            return 8 if adds_in_32_bits() else 7
        if self.target != "avx2" and not adds_in_32_bits():
            raise UserError(
                f"--target {self.target}: {cpu_name()} has no VNNI, so its sums over 8-bit weights "
                "are clipped, and nothing could be proven here; export on a CPU that has it (or on "
                "ARM), or take --target avx2"
            )
        return 7 if self.target == "avx2" else 8

    def _check(self) -> None:
        """Raises UserError if flags for weights from other software are wrong, or contradict."""
        self.elsewhere.check()
        if self.qat and (self.model == ALL or self.elsewhere.file or self.weights == "random"):
            raise UserError("--qat is for one network, with the weights of a run or published ones")
        if self.fold is not None:
            if not re.fullmatch(r"\d+of\d+", self.fold):
                raise UserError(f"--fold {self.fold}: it must be such as 2of5")
            if self.data is None or self.weights != "auto" or self.elsewhere.file:
                raise UserError(f"--fold {self.fold}: it is of a run: name its data with --data")
        kinds = ("checkpoint", "onnx", "program")
        files = [f"--{kind}" for kind in kinds if getattr(self.elsewhere, kind)]
        if len(files) > 1:
            raise UserError(f"{' and '.join(files)}: give one of them")
        if not self.elsewhere.file:
            rest = replace(self.elsewhere, size=None, channels=None)  # those suit any network
            if given := rest.flags:
                raise UserError(
                    f"{given[0]} says how to read --checkpoint, --onnx or --program FILE, and none "
                    "is given"
                )
        elif self.model == ALL or self.weights != "auto":
            other = "--model all" if self.model == ALL else f"--weights {self.weights}"
            raise UserError(f"{self.elsewhere.file} is one network's: leave out {other}")


@dataclass(frozen=True, kw_only=True)
class List:
    """List all artifacts after checking their files; the exit status is 1 if any is refused."""

    artifacts: Path = ARTIFACTS
    """Folder of all artifacts."""
    json: bool = False
    """Print one JSON object per line instead of a table."""

    def __call__(self) -> int:
        """Prints a row per artifact."""
        entries = list(stored_artifacts(self.artifacts))
        if self.json:
            for entry in entries:
                print(json.dumps(entry.to_dict()))
        else:
            cli.results().print(shelf_table(entries))
        return int(any(entry.artifact is None for entry in entries))


@dataclass(frozen=True)
class Show:
    """Show one artifact: what it is, its gates, the operators of its graph, its files."""

    artifact: Folder
    """Its folder."""

    def __call__(self) -> None:
        """Prints all that is known of it."""
        for table in show_tables(Artifact.load(self.artifact)):
            cli.results().print(table)


@dataclass(frozen=True)
class Verify:
    """Verify an artifact on this machine against all its gates and record it in the manifest."""

    artifact: Folder
    """Its folder."""
    data: str | None = None
    """Data set or folder of its run; default: the one in the manifest, if available."""
    rebuild: bool = False
    """Build the engine again first, for this GPU, from the graph in its folder."""

    def __call__(self) -> None:
        """Prints the gates as measured here; raises UserError if one does not hold."""
        from export.verify import rebuild, verify

        check = rebuild if self.rebuild else verify
        verified = check(Artifact.load(self.artifact), data=self.data)
        cli.results().print(gate_table(verified.gates))
        print(f"{self.artifact}: passed, against {verified.against}")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=cli.notes())


def _export_one(job: Job, elsewhere: Elsewhere) -> Exported:
    from export.build import build_artifacts
    from export.foreign import load_foreign
    from export.network import load_network
    from export.trained_int8 import with_learned

    if not elsewhere.file:
        network = load_network(job.model, job.data, job.weights, job.size, job.channels, job.fold)
        network = with_learned(network) if job.qat else network
    else:
        network = load_foreign(job.model, job.data, elsewhere)
    outcomes = []
    with _progress() as progress:
        task = progress.add_task(f"export {network.model}", total=len(job.targets))
        for outcome in build_artifacts(network, job.targets, job.options):
            outcomes.append(outcome)
            if not progress.console.is_terminal:  # where no bar moves
                progress.console.print(f"{outcome.target}: {_state(outcome)}")
            progress.advance(task)
    return [(f"{network.model}-{network.data}", outcomes)]


def _state(outcome: Outcome) -> str:
    if outcome.artifact:
        return "kept" if outcome.kept else "done"
    return "failed" if outcome.failed else "not built"


def _export_all(job: Job, workers: int) -> Exported:
    from export.jobs import run_jobs

    exported = {}
    jobs = [replace(job, model=name) for name in DEFAULT_NETWORKS]
    with _progress() as progress:
        task = progress.add_task("export all", total=len(jobs))
        for done, outcomes in run_jobs(jobs, workers):
            exported[done.model] = outcomes
            kept = sum(outcome.kept for outcome in outcomes)
            state = "failed" if any(outcome.failed for outcome in outcomes) else "done"
            progress.console.print(f"{done.model}: {state}" + (f", {kept} kept" if kept else ""))
            progress.advance(task)
    return [(name, exported[name]) for name in DEFAULT_NETWORKS]


def main() -> int | None:
    """Runs the command line and returns its exit status."""
    cli.collect_rarely()
    return tyro.cli(Run | List | Show | Verify | Push | Explain, prog="python -m export")()


if __name__ == "__main__":
    cli.run(main)
