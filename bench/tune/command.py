"""``pocketnets tune --data digits --p99 2ms``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from core import cli
from core.cores import usable_cores
from core.errors import UserError
from models.registry import DEFAULT_NETWORKS
from training.options import FolderOptions

if TYPE_CHECKING:
    from bench.tune.sections import Found

TUNING = Path("tuning")
_MODELS = "Networks to choose from, by registry name."


@dataclass(frozen=True, kw_only=True)
class Tune(FolderOptions):
    """Search for the network and the recipe of the highest top-1 within a latency.

    Trials are stored in tuning/<data>/study.db; the same command goes on until there are --trials.
    """

    data: str
    """Data set by name, or a folder, as for train."""
    models: Annotated[tuple[str, ...], tyro.conf.arg(help=_MODELS)] = DEFAULT_NETWORKS
    p99: str | None = None
    """Largest 99th percentile of latency of an image here, such as 5ms: of the last benchmark, if
    it has the network on these data, else measured now."""
    trials: int = 20
    """Trials that end, with those of before."""
    workers: int = 1
    """Processes that try at the same time, each on its share of the cores."""
    recipe_name: str | None = None
    """Recipe that trials change; left out: the default of each network and these data."""
    epochs: int | None = None
    """Epochs of a trial; left out: those of the recipe."""
    batch_size: int | None = None
    """Images in a batch of a trial; left out: that of the recipe."""
    size: int | None = None
    """Side of the images in pixels; left out: that of the recipe."""
    seed: int = 0
    """Seed of the recipes and of the search."""
    fresh: bool = False
    """Drop the trials of before."""
    out: Path = Path("reports")
    """Folder of the report, and of latency.jsonl."""

    def __call__(self) -> None:
        """Searches, writes the report, and prints the front and the command of the winner."""
        from bench.latency.pick import seconds
        from bench.tune.latency import speeds, within
        from bench.tune.plan import check_weights, find_candidates
        from bench.tune.processes import run_in_processes
        from bench.tune.search import Search
        from bench.tune.sections import Found
        from core.files import check_folder
        from training.datasets import load_data
        from training.look import look
        from training.trial import check_trial

        self._check()
        check_folder(self.out)
        limit = None if self.p99 is None else seconds(self.p99)
        candidates = find_candidates(
            self.models,
            self.data,
            recipe_name=self.recipe_name,
            epochs=self.epochs,
            batch_size=self.batch_size,
            size=self.size,
            seed=self.seed,
        )
        names = [field.name for field in fields(FolderOptions)]
        options = FolderOptions(**{name: getattr(self, name) for name in names})
        console = cli.notes()
        data = look(load_data(self.data, options, console), options, console)
        if data.task != "single":
            raise UserError(
                f"{self.data}: a search is by top-1, and an image here has any number of labels; "
                "train with one recipe after the other"
            )
        for line in data.scan.lines():
            console.print(line, soft_wrap=True, markup=False)  # [a] in a name is not markup
        for each in candidates:
            check_trial(each.model, data, each.recipe, flag="--batch-size")
        check_weights(candidates)  # before all networks are measured
        search = Search(TUNING / data.name, seed=self.seed)
        with search.alone():
            known = None if self.fresh else search.begin(candidates, limit)
            if known is None:
                known = speeds(candidates, data.name, len(data.labels), self.out)
                if not self.fresh:
                    search.keep_speeds(known)
            able = within(candidates, known, limit, self.p99 or "")
            if self.fresh:  # only now, as a limit out of reach must not cost the trials of before
                search.restart(candidates, limit, known)
            console.print(
                f"{len(able)} of {len(candidates)} networks within the limit: "
                f"{', '.join(each.model for each in able)}",
                soft_wrap=True,
            )
            try:
                if self.workers == 1:
                    search.run(able, data, self.trials)
                else:
                    run_in_processes(search, able, data, self.trials, self.workers)
            except KeyboardInterrupt as stop:
                kept = f"{search.folder} keeps the trials that ended: the same command goes on"
                raise type(stop)(kept) from None
            self._report(
                Found(
                    data=self.data,
                    candidates={each.model: each for each in able},
                    speeds=known,
                    tried=search.tried(),
                    p99=limit,
                    images=len(data.val),
                    flags=options.flags,
                ),
                f"tuning-{data.name}",
            )

    def _check(self) -> None:
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise UserError(f"optuna is not installed ({error}); pip install '.[tune]'") from None
        if self.trials < 1:
            raise UserError(f"--trials {self.trials}: it must be at least 1")
        if not 1 <= self.workers <= usable_cores():
            raise UserError(
                f"--workers {self.workers}: it must lie in 1..{usable_cores()}, the usable cores"
            )
        if self.folds is not None:
            raise UserError("--folds: a search judges by one held-out part; leave it out")

    def _report(self, found: Found, name: str) -> None:
        from bench.experiment import this_machine
        from bench.tune.sections import tune_report
        from core.conditions import now
        from report.terminal import print_table
        from report.write import write_report

        report = tune_report(found, name, this_machine(), now())
        self.out.mkdir(parents=True, exist_ok=True)
        files = write_report(report, self.out)
        if report.lead:
            print_table(report.lead)
        for line in report.summary[:-1]:
            cli.results().print(line, soft_wrap=True)
        print(files.html)
        if (winner := found.winner) is None:
            raise UserError(report.summary[-1])
        print(found.command(winner))
