"""``python -m bench run|report|compare|...``: what artifacts take, and a server under load."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table

from bench.correlation import correlation_section
from bench.images import golden_images, read_images
from bench.load import send_load
from bench.pick import Pick, pick_all, title, write_pick
from bench.prose import picks_table, summary
from bench.report import write_report
from bench.rows import Sweep, p50
from bench.sweep import Grid, find_artifacts, run_sweep
from bench.sweep_file import earlier_sweep, read_sweep, write_sweep
from bench.table import COLUMNS, MISSING, NUMERIC, measured_cells, ms, percent, unmeasured
from bench.timing import Plan
from export.artifact import Artifact
from models.cli import results, run
from models.errors import UserError
from models.files import write_whole

# What a terminal has room for; the report has the rest.
_SHOWN = tuple(n for n in COLUMNS if n not in ("Network", "95 % interval", "File MB", "Notes"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """Measure every artifact in every runtime, pick the fastest to serve, write the report."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder for latency.jsonl, .html, .png and .md."""
    batches: tuple[int, ...] = (1, 8)
    """Images per call."""
    threads: tuple[int, ...] = (1,)
    """CPU threads inside one call; several are measured beside each other."""
    compile: bool = False
    """Measure torch-compile, too: it compiles each network for each batch size, for minutes."""
    count: int = 100
    """Least number of samples of a candidate."""
    seconds: float = 3.0
    """Least sum of a candidate's samples."""
    limit: float = 4.0
    """Sum of its samples at which a slow candidate stops with fewer."""
    rounds: int = 12
    """Turns of a candidate."""
    seed: int = 0
    """Decides the order of the turns."""
    fresh: bool = False
    """Measure all of it anew; else what was measured before of the same artifacts is reused."""
    quick: bool = False
    """A first look: batch 1 only, 30 samples, 0.1 s to 0.2 s a candidate in 5 rounds; more ties."""

    def __call__(self) -> None:
        """Measures, and prints a table and where the report is."""
        plan = Plan(
            count=self.count,
            seconds=self.seconds,
            limit=self.limit,
            rounds=self.rounds,
            seed=self.seed,
        )
        if self.quick:
            plan = dataclasses.replace(plan, count=30, seconds=0.1, limit=0.2, rounds=5)
        grid = Grid(
            artifacts=self.artifacts,
            model=self.model,
            data=self.data,
            batches=(1,) if self.quick else self.batches,
            threads=self.threads,
            compile=self.compile,
        )
        sweep = run_sweep(
            grid,
            plan,
            known=earlier_sweep(self.out, fresh=self.fresh),
            fresh=self.fresh,
            save=lambda sweep: write_sweep(sweep, self.out),
        )
        write_sweep(sweep, self.out)
        sweep = sweep.only(self.model, self.data)
        for chosen in pick_all(sweep).values():
            write_pick(sweep, chosen, self.artifacts)
        _show(sweep, self.out)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report again from what was measured."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    out: Path = Path("reports")
    """Folder that holds latency.jsonl."""

    def __call__(self) -> None:
        """Writes the report and prints the table."""
        _show(read_sweep(self.out).only(self.model, self.data), self.out)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Say what became faster or slower from one run to another, beyond noise."""

    before: tyro.conf.Positional[Path]
    """Folder with latency.jsonl, or such a file."""
    after: tyro.conf.Positional[Path]
    """Likewise."""
    least: float = 0.05
    """A smaller difference, as a fraction, never counts."""

    def __call__(self) -> int:
        """Prints what changed; returns 1 if anything became slower."""
        from bench.compare import compare

        found = compare(read_sweep(self.before), read_sweep(self.after), least=self.least)
        out = results()
        table = Table(box=None, pad_edge=False)
        for name in ("Candidate", "Batch", "Threads", "before ms", "after ms", "ratio", ""):
            table.add_column(name, justify="left" if name in ("Candidate", "") else "right")
        for change in (*found.verdicts("slower"), *found.verdicts("faster")):
            a, b = change.before, change.after
            what = "artifact differs" if a.sha256 != b.sha256 else ""
            cells = (str(a.batch), str(a.threads), ms(p50(a)), ms(p50(b)), f"{change.ratio:.2f}")
            name = f"{a.network}: {title(a)}"
            table.add_row(name, *cells, f"{change.verdict}{', ' * bool(what)}{what}")
        if table.row_count:
            out.print(table)
        for name, rows in (("before", found.lost), ("after", found.new)):
            if rows:
                out.print(f"only {name}: {len(rows)} candidates, such as {rows[0].network}")
        control = (
            "torch eager cannot tell how far the machine itself moved"
            if found.control is None
            else f"nine in ten of torch eager's rows moved by at most {percent(found.control)}"
        )
        out.print(
            f"{len(found.changes)} candidates: {len(found.verdicts('slower'))} slower, "
            f"{len(found.verdicts('faster'))} faster, {len(found.verdicts('same'))} the same "
            f"within {percent(found.noise)}; {control}"
        )
        return 1 if found.verdicts("slower") else 0


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Show where the milliseconds of a network go, layer by layer, against where its MACs are."""

    model: tyro.conf.Positional[str]
    """Network, by its registry name."""
    data: str | None = None
    """The data of its artifact; left out: whatever there is."""
    format: Literal["onnx-fp32", "onnx-fp16", "onnx-int8"] = "onnx-fp32"
    """Which of its artifacts."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder for layers-<network>-<artifact>.md and .png."""
    batch: int = 1
    """Images per call."""
    threads: int = 1
    """CPU threads inside one call."""
    runs: int = 100
    """Calls that are looked at."""

    def __call__(self) -> None:
        """Prints the kinds of layers, the slowest ones and where the report is."""
        from bench.layer_report import sentence, show_layers, title, write_layers
        from bench.layers import measure_layers

        grid = Grid(
            artifacts=self.artifacts,
            model=self.model,
            data=self.data,
            batches=(self.batch,),
            threads=(self.threads,),
        )
        folders = [folder for folder in find_artifacts(grid) if folder.name == self.format]
        if len(folders) != 1:
            found = ", ".join(map(str, folders)) or "none"
            raise UserError(
                f"{self.artifacts}: one {self.format} artifact of {self.model} is wanted, there is "
                f"{found}; name its data with --data, or make it with: make export"
            )
        times = measure_layers(
            Artifact.load(folders[0]), batch=self.batch, threads=self.threads, runs=self.runs
        )
        out = results()
        out.print(title(times))
        for table in show_layers(times):
            out.print(table, "")
        out.print(sentence(times))
        print(write_layers(times, self.out))


@dataclass(frozen=True, kw_only=True)
class Load:
    """Post images to a server on this machine, as fast as it answers."""

    url: str = "http://127.0.0.1:3000/predict"
    """Where to post; this machine only."""
    images: Path | None = None
    """An image, or a folder of them; the golden images of an artifact if left out."""
    artifacts: Path = Path("artifacts")
    """Where to look for those."""
    connections: int = 4
    """Requests in flight at any time."""
    count: int = 1000
    """At most this many requests."""
    seconds: float = 10.0
    """At most this long."""

    def __call__(self) -> int:
        """Prints throughput, latency and statuses; returns 1 unless every answer was a 200."""
        images = (
            golden_images(find_artifacts(Grid(artifacts=self.artifacts))[0])
            if self.images is None
            else read_images(self.images)
        )
        load = asyncio.run(
            send_load(
                self.url,
                images,
                connections=self.connections,
                count=self.count,
                seconds=self.seconds,
            )
        )
        out = results()
        out.print(
            f"{sum(load.statuses.values()):,} requests in {load.seconds:.1f} s over "
            f"{self.connections} connections, {len(images)} different images"
        )
        out.print("statuses: " + ", ".join(f"{k} x {v:,}" for k, v in load.statuses.items()))
        if load.latency:
            p50, p95, p99 = (ms(load.latency.percentile(p)) for p in (50, 95, 99))
            out.print(f"throughput: {load.throughput:,.1f} images/s")
            out.print(f"latency: p50 {p50}, p95 {p95}, p99 {p99} ms (n={load.latency.count:,})")
        return 0 if set(load.statuses) == {"200"} else 1


@dataclass(frozen=True, kw_only=True)
class Training:
    """Measure how fast a network trains here: the loader, the step, both, and a plain loop."""

    model: str = "mobilenet_v3"
    """Network, by its registry name."""
    data: str = "digits"
    """Data set or folder, as for training."""
    recipe_name: str | None = None
    """As for training; left out: its default for this network and data."""
    workers: int | None = None
    """Processes that decode images; left out: the recipe's."""
    batch_size: int | None = None
    """Images per step; left out: the recipe's."""
    steps: int = 12
    """Timed steps, in each of three rounds."""

    def __call__(self) -> None:
        """Prints images/s of each."""
        from bench.training import REFERENCE, training_rates
        from models.registry import find_model
        from training.data import load_data
        from training.recipes import RECIPES, default_recipe

        name = self.recipe_name or default_recipe(self.model, self.data)
        recipe = RECIPES[name](find_model(self.model).native_size)
        recipe = dataclasses.replace(
            recipe,
            weights="random",
            workers=recipe.workers if self.workers is None else self.workers,
            batch_size=self.batch_size or recipe.batch_size,
        )
        recipe.check()
        rates = training_rates(self.model, load_data(self.data), recipe, steps=self.steps)
        slower = min(rates.loader, rates.step)
        table = Table(title=f"{self.model} on {self.data}, recipe {name}, {rates.device}")
        table.add_column("what")
        table.add_column("images/s", justify="right")
        table.add_column("ratio")
        table.add_row("loader alone", f"{rates.loader:,.1f}", "")
        table.add_row("step alone", f"{rates.step:,.1f}", "")
        table.add_row("both", f"{rates.both:,.1f}", f"{rates.both / slower:.2f} of the slower")
        for loop, rate in rates.loops.items():
            versus = f"step: {rates.step / rate:.2f} of it" if loop == REFERENCE else ""
            table.add_row(loop, f"{rate:,.1f}", versus)
        results().print(table)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer one question of the papers on this machine; what was measured before is kept."""

    name: tyro.conf.Positional[Literal["ablation"]]
    """ablation: what six variations of resnet14 cost and reach."""
    data: str = "fashion_mnist"
    """fashion_mnist or cifar10."""
    epochs: int = 80
    """Passes over the training images."""
    out: Path = Path("reports")
    """Folder for ablation-<data>.jsonl, .md and .png."""

    def __call__(self) -> None:
        """Trains what was not trained before, and prints the table and where it is."""
        from bench.studies.ablation import chart, markdown, run_ablation

        rows = list(run_ablation(self.data, epochs=self.epochs, out=self.out))
        page = self.out / f"ablation-{self.data}.md"
        write_whole(page.with_suffix(".png"), chart(self.data, rows))
        write_whole(page, markdown(self.data, rows).encode())
        print(page.read_text())
        print(page)


def _show(sweep: Sweep, folder: Path) -> None:
    """Writes the report and prints the rows, the picks and where the report is."""
    sections = [section for section in (correlation_section(sweep),) if section]
    report = write_report(sweep, folder, sections)
    picks = pick_all(sweep)
    out = results()
    if len(sweep.networks()) > 1:
        _show_networks(sweep, picks)
    else:
        _show_network(sweep, picks)
    lacking: dict[tuple[str, str], list[str]] = {}
    for network, artifact, _, _, reason in unmeasured(sweep):
        lacking.setdefault((reason, artifact), []).append(network)
    for (reason, artifact), networks in lacking.items():
        count = f"{networks[0]}" if len(networks) == 1 else f"{len(networks)} networks"
        out.print(f"not measured: {count}, {artifact}: {reason}")
    for sentence in (*summary(sweep, picks), *(s for part in sections for s in part.sentences)):
        out.print(sentence)
    out.print(report.html)


def _show_network(sweep: Sweep, picks: dict[str, Pick]) -> None:
    """Prints all measured rows."""
    table = Table(box=None, pad_edge=False)
    for name in _SHOWN:
        table.add_column(name, justify="right" if name in NUMERIC else "left", no_wrap=True)
    for batch in sweep.batches():
        for row in sweep.measured(batch=batch):
            cells = measured_cells(sweep, row, picks)
            served = any(best.row is row for best in picks.values())
            table.add_row(
                *(cells[name].replace(MISSING, "-") for name in _SHOWN),
                style="bold" if served else None,
            )
    if table.row_count:
        results().print(table)


def _show_networks(sweep: Sweep, picks: dict[str, Pick]) -> None:
    """Prints what to serve of each network; the report has all rows."""
    served = picks_table(sweep, picks)
    assert served is not None, "there are several networks"
    table = Table(box=None, pad_edge=False)
    for name in served.header:
        table.add_column(name, justify="right" if name in served.numeric else "left")
    for cells in served.rows:
        table.add_row(*cells)
    results().print(table)


if __name__ == "__main__":
    run(
        lambda: tyro.cli(
            Run | Report | Compare | Layers | Load | Training | Study, prog="python -m bench"
        )()
    )
