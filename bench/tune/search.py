"""The search: trials, stored in SQLite, of one process or several."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tune.latency import Speed
from bench.tune.plan import Candidate, as_text
from core import cli
from core.errors import UserError, first_line
from core.files import only_one

if TYPE_CHECKING:
    from optuna import Study, Trial

    from training.data import ImageData

DATABASE = "study.db"
_PLAN, _SPEEDS, _FIELDS, _EPOCHS, _FAILED = "plan", "speeds", "fields", "epochs", "failed"
_PROCESS, _CUTS = "process", "cuts"  # of a trial: who runs it, and how often it was cut off
_STARTUP = 5  # trials before any is pruned
_PATIENCE_S = 60.0  # for another process that writes to the database
_TRIES = 2  # of a trial whose process is killed, as the next one may be, too


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
        self.seed = seed

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other commands out.

        Raises:
            UserError: another command searches in the folder.
        """
        busy = f"{self.folder}: another command searches there; wait for it, or use its --workers"
        with only_one(self.folder, busy):
            yield

    def restart(
        self, candidates: list[Candidate], p99: float | None, speeds: dict[str, Speed]
    ) -> None:
        """Deletes the trials of before, and begins a search with the latencies that it knows."""
        self._drop()
        self.begin(candidates, p99)
        self.keep_speeds(speeds)

    def begin(self, candidates: list[Candidate], p99: float | None) -> dict[str, Speed] | None:
        """Begins the search, or goes on with it, and returns the latencies that it knows.

        A trial that was cut off is tried again: see :meth:`release`.

        Raises:
            UserError: the trials that ended there are of another search.
        """
        study, plan = self.study(), as_text(candidates, p99)
        known = study.user_attrs.get(_PLAN)
        if known not in (None, plan):
            if not self.tried():  # nothing is lost, and cut off trials are of other networks
                self._drop()
                return self.begin(candidates, p99)
            raise UserError(
                f"{self.folder / DATABASE} holds trials of a search with other networks, recipe, "
                "epochs, batch size, size, seed or --p99: go back to these, or --fresh drops them"
            )
        study.set_user_attr(_PLAN, plan)
        self.release()
        speeds = study.user_attrs.get(_SPEEDS)
        return None if speeds is None else {name: Speed(**each) for name, each in speeds.items()}

    def _drop(self) -> None:
        (self.folder / DATABASE).unlink(missing_ok=True)

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
                storage=optuna.storages.RDBStorage(
                    f"sqlite:///{self.folder / DATABASE}",
                    engine_kwargs={"connect_args": {"timeout": _PATIENCE_S}},
                ),
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
        """Tries until there are ``trials`` that ended or run elsewhere, in this process."""
        from optuna import TrialPruned
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        by_name = {each.model: each for each in candidates}
        console = cli.notes()
        study = self.study()
        begun = len(study.get_trials(deepcopy=False))  # or it would suggest the same once more
        # Trials that still run count as bad ones, so that processes try different things.
        study.sampler = TPESampler(seed=10_007 * self.seed + begun, constant_liar=True)
        while (trial := self._next(study, trials)) is not None:
            model = None
            try:
                model = trial.suggest_categorical("model", list(by_name))
                top1 = _try(trial, by_name[model], data)
                study.tell(trial, top1)
                value = f"top-1 {top1:.1%}"
            except TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
                value = "pruned"
            except KeyboardInterrupt:
                self.release(os.getpid(), killed=False)
                raise
            except Exception:
                study.tell(trial, state=TrialState.FAIL)
                console.print(f"trial {trial.number + 1}: {model}, no figure", soft_wrap=True)
                raise
            console.print(f"trial {trial.number + 1}: {model}, {value}", soft_wrap=True)

    def _next(self, study: Study, trials: int) -> Trial | None:
        """Returns another trial; None if as many as ``trials`` ended or run."""
        from optuna.trial import TrialState

        begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        with self._one_process():
            if len(study.get_trials(deepcopy=False, states=begun)) >= trials:
                return None
            trial = study.ask()
            trial.set_user_attr(_PROCESS, os.getpid())
            return trial

    def release(self, process: int | None = None, *, killed: bool = True) -> bool:
        """Ends the trials of a process that runs no more, and has them tried again.

        Args:
            process: its number; None for all trials that run.
            killed: whether it was killed: its trial is then tried again once only, as a network
                that needs too much memory would end one process after the other.

        Returns:
            Whether one of them is to be tried again.
        """
        from optuna.trial import TrialState

        study, again = self.study(), False
        with self._one_process():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if process not in (None, trial.user_attrs.get(_PROCESS, process)):
                    continue
                study.tell(trial.number, state=TrialState.FAIL)
                cuts = trial.user_attrs.get(_CUTS, 0) + killed
                if cuts >= _TRIES:
                    cli.notes().print(
                        f"trial {trial.number + 1}: {trial.params.get('model')}, its process was "
                        f"killed {cuts} times: it is not tried again",
                        soft_wrap=True,
                    )
                elif trial.params:
                    study.enqueue_trial(trial.params, user_attrs={_CUTS: cuts})
                    again = True
        return again

    def _one_process(self) -> AbstractContextManager[None]:
        """Keeps other processes of the search from beginning or releasing trials."""
        return only_one(self.folder / "next", None)


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
