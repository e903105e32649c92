"""Stand-ins for wandb and mlflow, which hold to what Lightning's loggers call of them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class FakeRun:
    """A run of Weights & Biases."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.id = settings["id"]
        self.name = settings["name"]
        self.parameters: dict[str, Any] = {}
        self.config = SimpleNamespace(update=self._update)
        self.logged: list[dict[str, float]] = []
        self.finished = False

    def _update(self, parameters: dict[str, Any], allow_val_change: bool = False) -> None:
        self.parameters |= parameters

    def log(self, figures: dict[str, float]) -> None:
        assert not self.finished
        self.logged.append(figures)

    def finish(self) -> None:
        self.finished = True


def fake_wandb(patch: pytest.MonkeyPatch, *, error: str = "") -> list[FakeRun]:
    """Installs a stand-in of wandb, and returns the runs that it will begin."""
    runs: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        if error:
            raise RuntimeError(error)
        runs.append(FakeRun(**settings))
        return runs[-1]

    _install(
        patch,
        {
            "wandb": {"init": init, "run": None, "Settings": lambda **given: given},
            "wandb.sdk": {},
            "wandb.sdk.lib": {"RunDisabled": type("RunDisabled", (), {})},
            "wandb.wandb_run": {"Run": FakeRun},
        },
    )
    patch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", True)
    return runs


class FakeTracking:
    """A server of MLflow: experiments, runs, parameters and metrics."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.uris: list[str] = []

    def get_experiment_by_name(self, name: str) -> Any:
        known = self.experiments.get(name)
        return known and SimpleNamespace(experiment_id=known, lifecycle_stage="active")

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
        identifier = f"run{len(self.runs)}"
        info = SimpleNamespace(run_id=identifier, experiment_id=experiment_id)
        self.runs[identifier] = SimpleNamespace(
            info=info, tags=tags, params={}, metrics={}, status="RUNNING"
        )
        return self.runs[identifier]

    def get_run(self, run_id: str) -> Any:
        return self.runs[run_id]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), **_: Any) -> None:
        self.runs[run_id].params |= {each.key: each.value for each in params}
        self.runs[run_id].metrics |= {each.key: each.value for each in metrics}

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status


def fake_mlflow(patch: pytest.MonkeyPatch) -> FakeTracking:
    """Installs a stand-in of mlflow, and returns its server."""
    server = FakeTracking()

    def client(uri: str) -> FakeTracking:
        server.uris.append(uri)
        return server

    tags = {"MLFLOW_RUN_NAME": "mlflow.runName"}
    _install(
        patch,
        {
            "mlflow": {"set_tracking_uri": lambda uri: None},
            "mlflow.tracking": {"MlflowClient": client},
            "mlflow.tracking.context": {},
            "mlflow.tracking.context.registry": {"resolve_tags": lambda given: given},
            "mlflow.entities": {"Param": SimpleNamespace, "Metric": SimpleNamespace},
            "mlflow.utils": {},
            "mlflow.utils.mlflow_tags": tags,
        },
    )
    patch.setattr("pytorch_lightning.loggers.mlflow._MLFLOW_AVAILABLE", True)
    return server


def _install(patch: pytest.MonkeyPatch, modules: dict[str, dict[str, Any]]) -> None:
    for name, members in modules.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
