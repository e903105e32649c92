from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from fake_loggers import fake_mlflow, fake_wandb
from few_digits import few_digits

from core.errors import UserError
from training.checkpoint import load_checkpoint
from training.fit import fit
from training.loggers import check_loggers, make_loggers
from training.options import LoggerName
from training.recipe import Recipe

RECIPE = Recipe(
    epochs=2, batch_size=32, learning_rate=0.01, resize=8, crop=8, min_scale=1.0, flip=False
)


def begin(folder: Path, name: LoggerName) -> object:
    (logger,) = make_loggers((name,), folder, model="resnet14", data="pets", recipe=RECIPE)
    return logger


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_goes_to_all_of_its_loggers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = fake_wandb(monkeypatch)
    data = few_digits("written", train=64, val=32)
    path = fit("resnet14", data, RECIPE, log=("tensorboard", "csv", "wandb"))
    history = load_checkpoint(path).history
    first, *written = rows(path.parent / "csv" / "metrics.csv")
    assert [first["loss"] != "", first["epoch/val_loss"]] == [True, ""]  # of the first step
    assert [float(row["epoch/val_loss"]) for row in written] == [each.val_loss for each in history]
    assert list((path.parent / "tensorboard").glob("events.*"))
    (run,) = runs
    assert run.finished
    assert run.name == "resnet14-written"
    assert run.parameters["learning_rate"] == 0.01
    seen = [each["epoch/train_top1"] for each in run.logged if "epoch/train_top1" in each]
    assert seen == [each.train_top1 for each in history]


def test_without_loggers_a_run_has_its_own_files_only(here: Path) -> None:
    path = fit("resnet14", few_digits("written", train=64, val=32), RECIPE, log=())
    assert (path.parent / "metrics.csv").exists()
    assert not (path.parent / "tensorboard").exists()


def test_a_resumed_run_keeps_the_figures_of_before(tmp_path: Path) -> None:
    for expected in ("csv", "csv-2", "csv-3"):
        logger = begin(tmp_path, "csv")
        logger.log_metrics({"loss": 1.0}, 1)  # type: ignore[attr-defined]
        logger.save()  # type: ignore[attr-defined]
        assert rows(tmp_path / expected / "metrics.csv")[0]["loss"] == "1.0"
    assert rows(tmp_path / "csv" / "metrics.csv")


def test_a_resumed_run_goes_on_at_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = fake_wandb(monkeypatch)
    for _ in range(2):
        begin(tmp_path, "wandb")
    first, second = runs
    assert first.id == second.id == json.loads((tmp_path / "loggers.json").read_text())["wandb"]
    assert first.settings["project"] == "pocketnets"
    assert first.settings["resume"] == "allow"
    begin(tmp_path / "another", "wandb")
    assert runs[-1].id != first.id


def test_a_resumed_run_goes_on_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = fake_mlflow(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for _ in range(2):
        logger = begin(tmp_path, "mlflow")
        logger.log_metrics({"epoch/loss": 1.5}, 3)  # type: ignore[attr-defined]
        logger.finalize("success")  # type: ignore[attr-defined]
    assert set(server.uris) == {"http://127.0.0.1:5000"}
    assert server.experiments == {"pocketnets": "0"}
    (run,) = server.runs.values()
    assert run.tags["mlflow.runName"] == "resnet14-pets"
    assert run.params["batch_size"] == "32"
    assert run.metrics == {"epoch/loss": 1.5}
    assert run.status == "FINISHED"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_missing_is_told_in_one_line(
    name: LoggerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loggers.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"--log {name}: .*pip install '\.\[{name}\]'"):
        check_loggers(("csv", name))


def test_a_server_that_refuses_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(monkeypatch, error="api_key not configured (no-tty)\nrun wandb login")
    with pytest.raises(UserError, match=r"^--log wandb: api_key not configured \(no-tty\)$"):
        begin(tmp_path, "wandb")


def test_weights_and_biases_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = begin(tmp_path, "wandb")
    logger.log_metrics({"epoch/loss": 1.0}, 1)  # type: ignore[attr-defined]
    logger.experiment.finish()  # type: ignore[attr-defined]
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    logger = begin(tmp_path, "mlflow")
    logger.log_metrics({"epoch/loss": 1.0}, 1)  # type: ignore[attr-defined]
    logger.finalize("success")  # type: ignore[attr-defined]
    run = logger.experiment.get_run(logger.run_id)  # type: ignore[attr-defined]
    assert run.data.metrics == {"epoch/loss": 1.0}
    assert run.info.status == "FINISHED"
