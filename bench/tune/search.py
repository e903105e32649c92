"""The search: trials in one or several processes, stored in SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tune.latency import Speed
from bench.tune.plan import Candidate, as_text
from core.cores import usable_cores
from core.errors import UserError, first_line
from core.files import only_one

if TYPE_CHECKING:
    from optuna import Study, Trial

    from training.data import ImageData
    from training.options import FolderOptions

DATABASE = "study.db"
_PLAN, _SPEEDS, _FIELDS, _EPOCHS, _FAILED = "plan", "speeds", "fields", "epochs", "failed"
_STARTUP = 5  # trials before any is pruned


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A trial that ended.

    Attributes:
        number: its number, from 0.
        model: registry name of the network.
        fields: the fields of the recipe that it set.
        top1: held-out top-1 in [0, 1]; None if it was pruned or failed.
        epochs: number of epochs that it was trained for.
        failed: why it failed; None if it did not.
    """

    number: int
    model: str
    fields: dict[str, Any]
    top1: float | None
    epochs: int
    failed: str | None = None


class Search:
    """A search in a folder, which one command at a time may use.

    Args:
        folder: its folder.
        seed: seed of the sampler.
    """

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder = folder
        self._seed = seed

    @contextmanager
    def alone(self, *, fresh: bool = False) -> Iterator[None]:
        """Keeps other commands out, and deletes the trials of before if ``fresh``.

        Raises:
            UserError: another command searches in the folder.
        """
        busy = f"{self.folder}: another command searches there; wait for it, or use its --workers"
        with only_one(self.folder, busy):
            if fresh:
                (self.folder / DATABASE).unlink(missing_ok=True)
            yield

    def begin(self, candidates: list[Candidate], p99: float | None) -> dict[str, Speed] | None:
        """Begins the search, or goes on with it, and returns the latencies that it knows.

        A trial that was cut off is tried again.

        Raises:
            UserError: the trials there are of another search.
        """
        from optuna.trial import TrialState

        study, plan = self.study(), as_text(candidates, p99)
        known = study.user_attrs.get(_PLAN)
        if known not in (None, plan) and study.get_trials(deepcopy=False):
            raise UserError(
                f"{self.folder / DATABASE} holds trials of a search with other networks, recipe, "
                "epochs, size, seed or --p99: go back to these, or --fresh drops them"
            )
        if known != plan:  # latencies may be of other sizes
            study.set_user_attr(_SPEEDS, None)
        study.set_user_attr(_PLAN, plan)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)
        speeds = study.user_attrs.get(_SPEEDS)
        return None if speeds is None else {name: Speed(**each) for name, each in speeds.items()}

    def keep_speeds(self, speeds: dict[str, Speed]) -> None:
        """Stores the latencies of the networks."""
        plain = {name: asdict(each) for name, each in speeds.items()}
        self.study().set_user_attr(_SPEEDS, plain)

    def study(self) -> Study:
        """Returns Optuna's study, made if it is not there."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            return optuna.create_study(
                storage=f"sqlite:///{self.folder / DATABASE}",
                study_name="tune",
                load_if_exists=True,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=1),
            )
        except Exception as error:  # of SQLAlchemy, which has no stable base class here
            raise UserError(
                f"{self.folder / DATABASE} cannot be used ({first_line(error)}); --fresh drops it"
            ) from error

    def tried(self) -> list[Tried]:
        """Returns all trials that ended, in order."""
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [
            Tried(
                number=trial.number,
                model=trial.params["model"],
                fields=json.loads(trial.user_attrs[_FIELDS]),
                top1=trial.value if trial.state == TrialState.COMPLETE else None,
                epochs=trial.user_attrs.get(_EPOCHS, 0),
                failed=trial.user_attrs.get(_FAILED),
            )
            for trial in self.study().get_trials(deepcopy=False, states=ended)
        ]

    def run(self, candidates: Sequence[Candidate], data: ImageData, trials: int) -> None:
        """Tries until there are ``trials`` that ended, in this process."""
        from optuna.samplers import TPESampler
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        from core import cli

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        by_name = {each.model: each for each in candidates}
        console = cli.notes()

        def objective(trial: Trial) -> float:
            candidate = by_name[trial.suggest_categorical("model", list(by_name))]
            return _try(trial, candidate, data)

        def said(_: Study, trial: Any) -> None:
            value = "no figure" if trial.state not in ended else "pruned"
            if trial.state == TrialState.COMPLETE:
                value = f"top-1 {trial.value:.1%}"
            name = trial.params.get("model")
            console.print(f"trial {trial.number + 1}: {name}, {value}", soft_wrap=True)

        study = self.study()
        begun = len(study.get_trials(deepcopy=False))  # or it would suggest the same once more
        # Trials that still run count as bad ones, so that processes try different things.
        study.sampler = TPESampler(seed=10_007 * self._seed + begun, constant_liar=True)
        if len(study.get_trials(deepcopy=False, states=ended)) < trials:
            study.optimize(objective, callbacks=[said, MaxTrialsCallback(trials, states=ended)])


def _try(trial: Trial, candidate: Candidate, data: ImageData) -> float:
    """Returns the held-out top-1 of a trial; raises TrialPruned if it is not worth more epochs."""
    from optuna import TrialPruned

    from training.module import LossNotFinite
    from training.records import Epoch
    from training.trial import run_trial

    fields = candidate.suggest(trial)
    trial.set_user_attr(_FIELDS, json.dumps(fields))
    pruned = False

    def go_on(epoch: Epoch) -> bool:
        nonlocal pruned
        trial.report(epoch.val_top1, epoch.epoch)
        trial.set_user_attr(_EPOCHS, epoch.epoch)
        pruned = epoch.epoch < candidate.recipe.epochs and trial.should_prune()
        return not pruned

    try:
        kept = run_trial(candidate.model, data, candidate.changed(fields), go_on)
    except LossNotFinite as error:
        trial.set_user_attr(_FAILED, str(error))
        raise TrialPruned(str(error)) from None
    if pruned:
        raise TrialPruned
    return kept.val_top1


def run_in_processes(
    search: Search,
    candidates: Sequence[Candidate],
    data: tuple[str, FolderOptions],
    trials: int,
    workers: int,
) -> None:
    """Runs :meth:`Search.run` in ``workers`` processes, each on its share of the cores.

    Raises:
        UserError: one of them failed, with the trials of all kept.
    """
    context = get_context("spawn")
    threads = max(1, usable_cores() // workers)
    arguments = [
        (search.folder, search._seed + number, list(candidates), data, trials, threads)
        for number in range(workers)
    ]
    processes = [context.Process(target=_work, args=each) for each in arguments]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise UserError(
            f"{len(failed)} of {workers} processes failed (status {failed[0]}, see above); "
            f"{search.folder} keeps all trials that ended: the same command goes on"
        )


def _work(
    folder: Path,
    seed: int,
    candidates: list[Candidate],
    data: tuple[str, FolderOptions],
    trials: int,
    threads: int,
) -> None:
    import torch

    from core import cli
    from training.datasets import load_data

    torch.set_num_threads(threads)
    cli.run(lambda: Search(folder, seed=seed).run(candidates, load_data(*data), trials))
