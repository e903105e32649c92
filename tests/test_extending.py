"""Each axis along which the house grows: a dummy is added here, and no other file is touched."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from torch import nn

from artifact.artifact import Artifact
from artifact.formats import FORMATS, FormatSpec
from artifact.records import Logits
from artifact.runtimes.base import RUNTIMES, Runtime, RuntimeSpec, load_runtime
from artifact.runtimes.ort import cpu_options
from bench.experiment import this_machine
from bench.latency.charts import colours
from bench.latency.measure import run_sweep
from bench.latency.pick import servable
from bench.latency.plan import Grid
from bench.measure.timing import Plan
from bench.studies.command import Study
from bench.studies.registry import STUDIES, StudySpec
from core.errors import UserError
from core.preprocess import Pixels
from export.build import build_artifacts
from export.network import load_network
from models import registry
from models.registry import build_model, find_model, list_models
from pocketnets.command import COMMANDS, Command, main
from serving.app import create_app
from serving.predictor import Predictor
from serving.routes import Reply, Route
from serving.settings import Settings
from training.data import ImageData
from training.datasets import DATASETS, DataSet, load_data
from training.recipes import default_recipe


def split(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Makes the two model files of the dummy format."""
    (draft.path / "model.first").write_bytes(graph[:1000])
    (draft.path / "model.rest").write_bytes(graph[1000:])
    return draft


class Joined(Runtime):
    """Runs the two files of the dummy format, put together again."""

    name = "joined"

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        files = [(artifact.path / name).read_bytes() for name in artifact.spec.files]
        self._session: Any = onnxruntime.InferenceSession(
            b"".join(files), cpu_options(threads), providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns the logits."""
        (logits,) = self._session.run(None, {"pixels": pixels})
        return np.asarray(logits, dtype=np.float32)

    def close(self) -> None:
        """Holds nothing."""


FORMAT = FormatSpec(
    name="split",
    files=("model.first", "model.rest"),
    max_bytes=1 << 30,
    schemes={"fp32": "fp32", "int8": "int8"},
    proving_runtime="joined",
    build=f"{__name__}:split",
)
RUNTIME = RuntimeSpec(
    name="joined",
    loader=f"{__name__}:Joined",
    formats=("split",),
    precisions=("fp32",),
    packages=("pytest",),
    install="pip install pytest",
)


def test_a_runtime_and_a_format_of_two_files(
    in_trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(FORMATS, FORMAT.name, FORMAT)
    monkeypatch.setitem(RUNTIMES, RUNTIME.name, RUNTIME)
    monkeypatch.setattr("export.build.ARTIFACTS", tmp_path)
    (outcome,) = build_artifacts(load_network("mobilenet_v3", "digits"), ("split-fp32",))
    assert outcome.reason is None
    made = tmp_path / "mobilenet_v3_large-digits" / "split-fp32"
    artifact = Artifact.load(made)
    assert {"model.first", "model.rest", "model.onnx"} < set(artifact.sha256s)
    assert artifact.size == artifact.graph_file.stat().st_size
    assert artifact.parity is not None, artifact.unverified
    assert artifact.parity.runtime == "joined"
    with pytest.raises(UserError, match="use joined"):
        load_runtime("ort-cpu", artifact)

    plan = Plan(count=5, seconds=0, rounds=5)
    sweep = run_sweep(Grid(artifacts=tmp_path, batches=(1,)), plan)
    (row,) = sweep.rows
    assert (row.runtime, row.precision, row.reason) == ("joined", "fp32", None)
    assert servable(row)
    assert this_machine().versions["pytest"] == pytest.__version__
    assert colours()["joined"] not in [colours()[name] for name in RUNTIMES if name != "joined"]

    (made / "model.rest").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.rest: its bytes are not those of the manifest"):
        Artifact.load(made)


def dots() -> ImageData:
    """Returns eight images of two classes."""
    images = [(Image.new("L", (8, 8), 32 * number), number % 2) for number in range(8)]
    return ImageData(name="dots", labels=("even", "odd"), train=images[:6], val=images[6:])


def test_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSet(
        name="dots", load=dots, recipe="digits", images="8", held_out="2", origin="made here"
    )
    monkeypatch.setitem(DATASETS, spec.name, spec)
    assert len(load_data("dots").train) == 6
    assert default_recipe("mobilenet_v3", "dots") == "digits"
    with pytest.raises(UserError, match="did you mean dots"):
        load_data("dotz")


def ask(name: str, out: Path, **flags: Any) -> Path:
    """Answers the dummy study."""
    page = out / f"{name}.md"
    page.write_text(f"# {flags}\n")
    return page


def test_a_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = StudySpec(name="dummy", summary="is it run?", run=f"{__name__}:ask", flags=("seconds",))
    monkeypatch.setitem(STUDIES, spec.name, spec)
    Study(name="dummy", seconds=0.5, out=tmp_path)()
    assert "{'seconds': 0.5}" in capsys.readouterr().out
    with pytest.raises(UserError, match="no option of the study dummy; it takes --seconds"):
        Study(name="dummy", batch=2, out=tmp_path)()


def test_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    entry = registry.Entry(name="dummy", build=build, family="dummies", native_size=32)
    list_models()  # registers the others
    monkeypatch.setitem(registry.NETWORKS, "dummy", entry)
    assert find_model("dummy").family == "dummies"
    assert build_model("dummy", num_classes=4)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert "dummy" in list_models()


def test_a_route_needs_the_token_unless_it_is_public(artifact_path: Path) -> None:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    async def get(path: str, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    settings = Settings(artifact=artifact_path, token="secret")
    predictor = Predictor(settings, Artifact.load(artifact_path))
    described = Route(
        "/hello",
        hello,
        query={"name": Annotated[str, Field(max_length=9, description="of whom")]},
        summary="Say hello",
        replies={200: Reply("A greeting", str)},
    )
    app = create_app(predictor, [described, Route("/open", hello, public=True)])
    assert asyncio.run(get("/hello")).status_code == 401
    assert asyncio.run(get("/hello?name=x", authorization="Bearer secret")).text == "hello"
    assert asyncio.run(get("/hello?nam=x", authorization="Bearer secret")).status_code == 400
    assert asyncio.run(get("/open")).text == "hello"
    paths = asyncio.run(get("/openapi.json")).json()["paths"]
    assert "/open" not in paths
    operation = paths["/hello"]["get"]
    assert operation["parameters"][0]["schema"] == {"type": "string", "maxLength": 9}
    assert operation["responses"].keys() == {"200", "400", "401"}


@dataclass(frozen=True, kw_only=True)
class Greet:
    """Greet somebody."""

    name: str
    """Whom."""

    def __call__(self) -> int:
        """Prints a greeting."""
        print(f"hello {self.name}")
        return 3


def test_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("greet", "Greet somebody", f"{__name__}:Greet")
    monkeypatch.setitem(COMMANDS, command.name, command)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pocketnets", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == (3 if "--name" in arguments else 0)
        return capsys.readouterr().out

    assert run("greet", "--name", "you") == "hello you\n"
    assert "Greet somebody" in run("--help")
    assert "Whom." in run("greet", "--help")
    assert "greet" in run("--print-completion", "bash")
