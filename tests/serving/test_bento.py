from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


def bentofile() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    assert isinstance(content, dict)
    return content


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^\s;#]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_it_holds_just_the_code_that_serving_loads(
    artifact_path: Path, environment: dict[str, str]
) -> None:
    code = (
        "import json, sys, serving.service as s\n"
        "with s.predictor: pass\n"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items()"
        " if n.partition('.')[0] in ('models', 'export', 'serving', 'training', 'bench')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "POCKETNETS_ARTIFACT": str(artifact_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        str(Path(file).relative_to(ROOT)) for file in json.loads(done.stdout.splitlines()[-1])
    }
    listed = {pattern for pattern in bentofile()["include"] if pattern.endswith(".py")}
    # Only the GPU's runtime asks for a GPU, but both runtimes are in one file.
    assert listed == loaded | {"export/runtimes/gpu.py"}
    assert set(bentofile()["include"]) - listed == {"serving/artifact/*"}


def test_its_packages_are_pinned_and_without_torch() -> None:
    packages = bentofile()["python"]["packages"]
    assert len(pins(packages)) == len(packages)
    assert not [name for name in pins(packages) if "torch" in name]


@pytest.mark.skipif(not CONSTRAINTS.exists(), reason="there is no constraints.txt")
def test_its_pins_are_those_of_the_project() -> None:
    project = pins(CONSTRAINTS.read_text().splitlines())
    project.setdefault("onnxruntime", project["onnxruntime-gpu"])  # one release, two builds
    for name, version in pins(bentofile()["python"]["packages"]).items():
        assert project[name] == version, name


def test_builds_and_serves_from_another_folder(
    artifact_path: Path,
    encoded: Callable[..., bytes],
    serve: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    elsewhere.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "artifact")
    for package in ("models", "export", "serving"):
        shutil.copytree(ROOT / package, source / package, ignore=ignore)
    shutil.copy(ROOT / "bentofile.yaml", source)
    built = subprocess.run(
        [sys.executable, "-m", "serving.bento", "--artifact", str(artifact_path)],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip()
    assert re.fullmatch(r"pocketnets:\w+", tag)
    bento = tmp_path / "bentoml" / "bentos" / tag.replace(":", "/")
    requirements = (bento / "env/python/requirements.txt").read_text()
    assert "bentoml==" in requirements
    assert "torch" not in requirements
    held = {str(path.relative_to(bento / "src")) for path in (bento / "src").rglob("*.py")}
    assert held == {pattern for pattern in bentofile()["include"] if pattern.endswith(".py")}
    shutil.rmtree(source)  # the Bento stands alone
    with serve("-m", "bentoml", "serve", tag, cwd=elsewhere, environment=environment) as server:
        image = {"image": ("a.png", encoded("blue"))}
        answer = httpx.post(f"{server.url}/predict", files=image).json()
        places = {process.cwd() for process in server.family[1:]}
    assert answer["predictions"][0]["label"] == "blue"
    assert places == {str(bento / "src")}
