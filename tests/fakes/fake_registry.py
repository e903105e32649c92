"""A stand-in of MLflow's model registry, which holds to what a push calls of its client."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RegistryError(Exception):
    """As MLflow raises it."""

    error_code = "RESOURCE_ALREADY_EXISTS"


class FakeRegistry:
    """Runs with files, and models with versions."""

    def __init__(self) -> None:
        self.runs: list[SimpleNamespace] = []
        self.models: dict[str, list[SimpleNamespace]] = {}
        self.refuse = ""  # the name of the call that fails

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        identifier = f"run{len(self.runs)}"
        info = SimpleNamespace(run_id=identifier, artifact_uri=f"mlflow-artifacts:/{identifier}")
        self.runs.append(SimpleNamespace(info=info, files={}, status="RUNNING"))
        return self.runs[-1]

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str) -> None:
        self._may_fail("log_artifacts")
        files = self._run(run_id).files
        for file in Path(local_dir).rglob("*"):
            if file.is_file():
                files[f"{artifact_path}/{file.relative_to(local_dir)}"] = file.read_bytes()

    def set_terminated(self, run_id: str, status: str) -> None:
        self._run(run_id).status = status

    def create_registered_model(self, name: str) -> None:
        if name in self.models:
            raise RegistryError(f"Registered Model (name={name}) already exists.")
        self.models[name] = []

    def search_model_versions(self, filter_string: str) -> list[Any]:
        name = filter_string.removeprefix("name = '").removesuffix("'")
        return list(self.models.get(name, ()))

    def create_model_version(self, name: str, source: str, run_id: str, **fields: Any) -> Any:
        self._may_fail("create_model_version")
        version = str(len(self.models[name]) + 1)
        made = SimpleNamespace(version=version, source=source, run_id=run_id, **fields)
        self.models[name].append(made)
        return made

    def _run(self, run_id: str) -> SimpleNamespace:
        return next(run for run in self.runs if run.info.run_id == run_id)

    def _may_fail(self, call: str) -> None:
        if self.refuse == call:
            raise ConnectionError("connection refused\nmore of it")


def fake_registry(patch: pytest.MonkeyPatch) -> FakeRegistry:
    """Installs the stand-in as mlflow, and returns its registry."""
    registry = FakeRegistry()
    modules: dict[str, dict[str, Any]] = {
        "mlflow": {"set_tracking_uri": lambda uri: None},
        "mlflow.tracking": {"MlflowClient": lambda uri: registry},
        "mlflow.exceptions": {"MlflowException": RegistryError},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)
    return registry
