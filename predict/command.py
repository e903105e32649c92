"""``python -m predict ARTIFACT SOURCE...``: classifies many images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from artifact.answering import answering_of
from artifact.artifact import digest_of, manifest_of
from artifact.opening import open_artifact
from artifact.runtimes.base import runs_on_gpu
from core.errors import UserError, storage_error
from core.preprocess import MAX_PIXELS, Truncated
from predict.classifier import TOP_K, Classifier, Limits, Prediction, chosen
from predict.copies import Copies
from predict.gallery import Gallery
from predict.journal import Journal, Plan
from predict.pipeline import Item, Row, classify, readable
from predict.progress import Progress
from predict.sinks import Form, find_sink, json_line, write_rows
from predict.sources import Passed, Source, count_items, find_items, find_sources
from report.format import one_line, percent, plural

_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify many images with an artifact, without a server."""

    artifact: tyro.conf.Positional[Path]
    """Folder of the artifact, or of several artifacts of which a benchmark picked one."""
    sources: tyro.conf.Positional[tuple[str, ...]] = ()
    """Images, folders, patterns ('**/*.jpg'), zip and tar archives, lists of paths (.txt, or .csv
    with a column path or image), - for a list on stdin, URLs (s3://, https://, ...)."""
    out: Path | None = None
    """Output file: .csv, .jsonl or .parquet. Default: stdout, as JSON Lines unless it is a
    terminal."""
    top_k: int = TOP_K
    """Number of classes in each row, at most all."""
    runtime: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Runtime. Default: a benchmark's pick, else ort-cpu, or the one that the format needs."""
    threads: int | None = None
    """Number of batches processed concurrently. Default: one per core."""
    batch_size: int = 0
    """Most images per call; 0 means 4 on a CPU, and on a GPU the most efficient size, measured."""
    max_bytes: int = _LIMITS.max_bytes
    """Size limit of an image file."""
    max_pixels: int = _LIMITS.max_pixels
    """Limit of an image's pixels, checked before decoding."""
    truncated: Truncated = _LIMITS.truncated
    """accept: also JPEGs that lack their end marker, or at most 32 rows and 1/16 of the image."""
    copy_to: Path | None = None
    """Copy each image to a folder of its class in this folder, or of each of its labels; nothing is
    overwritten."""
    gallery: Path | None = None
    """Write an HTML page with some of the images and their predictions, and the classes."""
    resume: bool = False
    """Resume a run that was stopped before --out was complete."""
    fresh: bool = False
    """Discard the rows of a stopped run and start again."""
    abstain: bool = False
    """Answer no class where the best score is below the artifact's threshold for that."""
    strict: bool = False
    """Exit with status 1 if any image could not be classified; the rows are written anyway."""
    engine: Literal["threads", "ray"] = "threads"
    """ray: use the machines of a Ray cluster; --out is then a folder of Parquet files."""
    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Address of the Ray cluster. Default: RAY_ADDRESS, else a new one on this machine."""
    allow_unverified: bool = False
    """Accept an artifact even if it was never run."""

    def __call__(self) -> int:
        """Classifies all images and writes their rows; returns the exit status."""
        self._check()
        sources = find_sources(self.sources, self.max_bytes, self._ours)
        limits = Limits(
            max_bytes=self.max_bytes, max_pixels=self.max_pixels, truncated=self.truncated
        )
        options: dict[str, Any] = {
            "runtime": self.runtime,
            "batch_size": self.batch_size,
            "limits": limits,
            "allow_unverified": self.allow_unverified,
            "abstain": self.abstain,
        }
        if self.engine == "ray":
            failed = self._on_cluster(sources, options)
            return 1 if self.strict and failed else 0
        with Classifier.open(self.artifact, threads=self.threads, **options) as classifier:
            run = _Run(self, classifier, sources)
            if self.out is None:
                run.print_rows()
            else:
                run.write_rows(self.out)
        return 1 if self.strict and run.failed else 0

    def _on_cluster(self, sources: list[Source], options: dict[str, Any]) -> int:
        """Classifies on a Ray cluster and writes the rows; returns how many images failed."""
        from predict.ray_engine import predict_on_cluster

        assert self.out is not None
        passed = Passed()
        choice = chosen(self.artifact)
        artifact = open_artifact(choice.artifact, allow_unverified=self.allow_unverified)
        answering_of(artifact, abstain=self.abstain)  # refuses before there are workers
        runtime = self.runtime or choice.runtime or artifact.spec.proving_runtime
        with redirect_stdout(sys.stderr):  # Ray prints warnings of its nodes
            images, failed = predict_on_cluster(
                find_items(sources, passed),
                self.out,
                choice.artifact,
                {**options, "runtime": runtime},
                min(self.top_k, len(artifact.labels)),
                address=self.address,
                gpu=runs_on_gpu(runtime),
            )
        _say(images, failed, passed)
        print(self.out)
        return failed

    @property
    def _ours(self) -> tuple[Path, ...]:
        """Returns the paths this command writes, which are excluded from the sources."""
        files = [self.gallery, self.copy_to]
        if self.out is not None:
            files += [self.out, partial_file(self.out)]
        return tuple(path for path in files if path is not None)

    def _check(self) -> None:
        """Raises UserError for contradictory or invalid flags, before anything is done."""
        if not self.sources:
            raise UserError("no images: name files, folders, archives or lists after the artifact")
        for name, value, most in (
            ("top-k", self.top_k, None),
            ("max-bytes", self.max_bytes, None),
            ("max-pixels", self.max_pixels, MAX_PIXELS),
        ):
            if value < 1 or (most is not None and value > most):
                allowed = "at least 1" if most is None else f"in 1..{most}"
                raise UserError(f"--{name} is {value}: it must be {allowed}")
        if self.gallery and self.gallery.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--gallery {self.gallery}: its name must end in .html")
        if self.resume and self.fresh:
            raise UserError("--resume and --fresh: give one of the two")
        if self.engine == "ray":
            for flag in ("copy_to", "gallery", "resume", "fresh", "threads"):
                if getattr(self, flag):
                    name = flag.replace("_", "-")
                    raise UserError(f"--{name} and --engine ray: leave one of the two out")
            if self.out is None or self.out.suffix:
                raise UserError(
                    f"--out {self.out}: --engine ray writes a folder of Parquet files; name one "
                    "without an ending, on a file system that all nodes share"
                )
            return
        if self.address:
            raise UserError("--address is for --engine ray: leave it out, or name that engine")
        if self.out is None and (self.resume or self.fresh):
            raise UserError("--resume and --fresh need --out: without it nothing is kept")
        if self.out is not None:
            find_sink(self.out)
            if os.path.isdir(self.out):
                raise UserError(f"--out {self.out}: that is a folder; name a file")


class _Run:
    """One run of the command: writes rows, copies and the gallery, and counts."""

    def __init__(self, flags: Predict, classifier: Classifier, sources: list[Source]) -> None:
        self._flags, self._classifier, self._sources = flags, classifier, sources
        self._form = Form(min(flags.top_k, len(classifier.labels)), classifier.answering)
        self._copies = Copies(flags.copy_to, classifier.labels) if flags.copy_to else None
        self._gallery = Gallery(classifier.limits) if flags.gallery else None
        self._passed = Passed()
        self.images = self.failed = 0

    def print_rows(self) -> None:
        """Prints each row as it comes."""
        to_people = sys.stdout.isatty()
        line = _readable_line if to_people else partial(json_line, form=self._form)
        items = find_items(self._sources, self._passed)
        # A progress bar would flicker between the lines.
        with Progress(self._count, shown=not to_people) as progress:
            self._classify(items, lambda row: print(line(row)), progress)
        self._finish()

    def write_rows(self, out: Path) -> None:
        """Writes all rows to ``out``, which appears at the end; a stopped run can be resumed."""
        path = partial_file(out)
        plan = self._plan()
        journal = _open_journal(path, out, plan, resume=self._flags.resume, fresh=self._flags.fresh)
        items = find_items(self._sources, self._passed)
        with journal:
            try:
                with Progress(self._count) as progress:
                    self._pass_over(journal, items, progress)
                    with _says_what_is_kept(journal):
                        self._classify(items, journal.append, progress)
                with _says_what_is_kept(journal):
                    write_rows(out, journal.rows(), self._form)
                    self._finish()
            except KeyboardInterrupt as stop:
                raise type(stop)(_kept(journal)) from None
            journal.delete()
        print(out)

    def _plan(self) -> Plan:
        flags, artifact = self._flags, self._classifier.artifact
        return Plan(
            artifact=digest_of(manifest_of(artifact)),
            runtime=self._classifier.runtime,
            top_k=self._form.top_k,
            sources=tuple(map(readable, flags.sources)),
            max_bytes=flags.max_bytes,
            max_pixels=flags.max_pixels,
            truncated=flags.truncated,
            copy_to=readable(str(flags.copy_to)) if flags.copy_to else None,
            abstain=flags.abstain,
        )

    def _pass_over(self, journal: Journal, items: Iterator[Item], progress: Progress) -> None:
        """Skips the items of ``items`` that already have a row in ``journal``."""
        for number, row in enumerate(journal.rows(), start=1):
            item = next(items, None)
            if item is None or item.path != row.path:
                there = "nothing" if item is None else item.path
                raise UserError(
                    f"image {number} was {row.path}, and now there is {there}: the sources changed "
                    "since that run began; --fresh starts anew"
                )
            self._count_row(row, item.load)
            progress.skip()

    def _classify(
        self, items: Iterator[Item], emit: Callable[[Row], object], progress: Progress
    ) -> None:
        keep = self._copies is not None or self._gallery is not None
        top_k = self._form.top_k
        with closing(classify(self._classifier, items, top_k=top_k, keep=keep)) as outcomes:
            for item, data, row in outcomes:
                if self._copies and row.prediction:
                    assert data is not None
                    for label in row.prediction.labels:
                        self._copies.add(label, item.relative, data)
                emit(row)
                self._count_row(row, partial(_given, data))
                progress.advance()

    def _count_row(self, row: Row, load: Callable[[], bytes]) -> None:
        self.images += 1
        self.failed += row.prediction is None
        if self._gallery:
            self._gallery.offer(row, load)

    def _count(self) -> int | None:
        return count_items(self._sources)

    def _finish(self) -> None:
        """Writes the gallery and prints the counts."""
        if self._gallery and self._flags.gallery:
            artifact, runtime = self._classifier.artifact, self._classifier.runtime
            self._gallery.write(self._flags.gallery, artifact, runtime)
        _say(self.images, self.failed, self._passed)


def _say(images: int, failed: int, passed: Passed) -> None:
    """Prints on stderr how many images were classified, failed and skipped."""
    parts = [f"{plural(images, 'image')}, {failed:,} failed"]
    parts += [f"{count:,} {reason}" for reason, count in passed.items() if count]
    print("; ".join(parts), file=sys.stderr)


def partial_file(out: Path) -> Path:
    """Returns the file with the rows of an unfinished run to ``out``."""
    return out.with_name(f"{out.name}.partial")


def _open_journal(path: Path, out: Path, plan: Plan, *, resume: bool, fresh: bool) -> Journal:
    there = os.path.exists(path)
    # An empty one comes from a run that was killed before it wrote anything.
    if fresh or not there or not os.path.getsize(path):
        if resume and not there and out.exists():
            raise UserError(f"--resume: {out} is whole; without that flag it is made anew")
        return Journal.begin(path, plan)
    if resume:
        return Journal.go_on(path, plan)
    Journal.check_idle(path)
    raise UserError(
        f"{path} is left of a run that was stopped: --resume goes on with it, --fresh drops it"
    )


@contextmanager
def _says_what_is_kept(journal: Journal) -> Iterator[None]:
    """Adds to an exception's message how the run can be resumed from ``journal``."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {_kept(journal)}") from None
    except OSError as error:
        if (reason := storage_error(error)) is None:
            raise
        raise UserError(f"{reason}; {_kept(journal)}") from None


def _kept(journal: Journal) -> str:
    """Returns a text: how many rows of a stopped run are kept, and how to resume it.

    They are counted in the closed file, as the run may have stopped in the midst of a row.
    """
    journal.close()
    rows = plural(journal.count(), "row")
    return f"{journal.path} keeps {rows}; the same command with --resume goes on from there"


def _readable_line(row: Row) -> str:
    if row.prediction is None:
        return f"{one_line(row.path)}: {one_line(row.error or '')}"
    top = ", ".join(f"{one_line(label)} {percent(score)}" for label, score in row.prediction.top)
    return f"{one_line(row.path)}: {_answer(row.prediction)}{top}"


def _answer(prediction: Prediction) -> str:
    """Returns a text: the answer, where that is not just the most likely class."""
    if prediction.labels == (prediction.label,):
        return ""
    labels = ", ".join(map(one_line, prediction.labels)) or "no answer"
    return f"{labels}; likeliest "


def _given(data: bytes | None) -> bytes:
    assert data is not None, "it was kept"
    return data
