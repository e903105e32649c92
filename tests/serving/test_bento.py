from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from artifact.runtimes.base import RUNTIMES
from core.errors import UserError
from serving.bento import BENTOFILE, requirements
from serving.settings import GRACE_S, Settings

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
REQUIREMENTS = ROOT / "serving" / "requirements.txt"
GPU_DOCKERFILE = ROOT / "serving" / "kubernetes" / "gpu" / "Dockerfile"
IMPORTED = (
    "h2",
    "hpack",
    "httptools",
    "multipart",
    "numpy",
    "onnxruntime",
    "pillow",
    "prometheus-client",
    "protobuf",
    "pydantic",
    "starlette",
    "typing-extensions",
    "uvloop",
)


def bentofile() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "serving" / "bentofile.yaml").read_text())
    assert isinstance(content, dict)
    return content


def held_code() -> set[Path]:
    """Returns the Python files that a Bento holds, by the list in serving/bentofile.yaml."""
    patterns = [each.removeprefix("/") for each in bentofile()["include"] if each.endswith(".py")]
    return {file.relative_to(ROOT) for pattern in patterns for file in ROOT.glob(pattern)}


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s;#]+)", line) for line in lines]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def needed(python: str, *requirements: str) -> set[str]:
    """Returns the names of ``requirements`` and of all that they need, as installed here."""
    names: set[str] = set()
    open_ends = [Requirement(each) for each in requirements]
    while open_ends:
        wanted = open_ends.pop()
        name = canonicalize_name(wanted.name)
        if name in names:
            continue
        names.add(name)
        # One release, two builds; here the one for GPUs is installed.
        installed = "onnxruntime-gpu" if name == "onnxruntime" else name
        for extra in wanted.extras or {""}:
            facts = {"extra": extra, "python_version": python, "python_full_version": f"{python}.0"}
            open_ends += [
                each
                for each in map(Requirement, importlib.metadata.requires(installed) or [])
                if each.marker is None or each.marker.evaluate(facts)
            ]
    return names


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Returns name and text of each instruction in ``dockerfile``."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    stripped = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(name, text) for name, _, text in (line.partition(" ") for line in stripped)]


def test_it_holds_all_code_that_serving_loads(
    artifact_path: Path, environment: dict[str, str]
) -> None:
    code = (
        "import json, sys, serving.service as s\n"
        "import artifact.runtimes.ort_cuda\n"  # which it imports where that is the runtime
        "with s.models: pass\n"
        "print(json.dumps([m.__file__ for m in sys.modules.values() if getattr(m, '__file__', 0)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "POCKETNETS_ARTIFACT": str(artifact_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(file) for file in json.loads(done.stdout.splitlines()[-1])]
    own = [file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT)]
    loaded = {file for file in own if not file.parts[0].startswith(".")}  # .venv may lie here
    assert Path("artifact/artifact.py") in loaded
    assert loaded - held_code() == set()


def test_it_needs_what_is_pinned_and_no_torch() -> None:
    assert {canonicalize_name(Requirement(line).name) for line in requirements("ort-cpu")} == set(
        pins(REQUIREMENTS)
    )
    assert ROOT / bentofile()["python"]["requirements_txt"] == REQUIREMENTS
    python = bentofile()["docker"]["python_version"]
    assert pins(REQUIREMENTS).keys() == needed(python, "bentoml", *IMPORTED) - {"bentoml"}
    assert not [name for name in pins(REQUIREMENTS) if "torch" in name]


@pytest.mark.skipif(not CONSTRAINTS.exists(), reason="there is no constraints.txt")
def test_its_pins_are_those_of_the_project() -> None:
    project = pins(CONSTRAINTS)
    project.setdefault("onnxruntime", project["onnxruntime-gpu"])  # one release, two builds
    for name, version in pins(REQUIREMENTS).items():
        assert project[name] == version, name


def test_an_installed_package_has_what_it_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["serving"]
    packed = {file for pattern in patterns for file in (ROOT / "serving").glob(pattern)}
    assert {BENTOFILE, REQUIREMENTS} <= packed


def test_holds_the_listed_files(bento: Path) -> None:
    held = {path.relative_to(bento / "src") for path in (bento / "src").rglob("*.py")}
    assert held == held_code()


def test_serves_from_another_folder(
    bento: Path,
    encoded: Callable[..., bytes],
    serve: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    tag = f"{bento.parent.name}:{bento.name}"
    assert re.fullmatch(r"pocketnets:\w+", tag)
    environment["BENTOML_HOME"] = str(bento.parents[2])
    with serve("-m", "bentoml", "serve", tag, cwd=tmp_path, environment=environment) as server:
        image = {"image": ("a.png", encoded("blue"))}
        answer = httpx.post(f"{server.url}/predict", files=image).json()
        named = httpx.get(f"{server.url}/v2/models/channels-colours/versions/onnx-fp32")
        places = {process.cwd() for process in server.family[1:]}
        icon = httpx.get(f"{server.url}/favicon.ico")
        moved = httpx.get(f"{server.url}/predict/")
        missing = httpx.get(f"{server.url}/nothing")
        headers = {"expect": "100-continue", "content-encoding": "br"}
        refused = httpx.post(f"{server.url}/predict", headers=headers)
    assert (icon.status_code, moved.headers["location"]) == (200, "../predict")
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")
    assert (refused.status_code, refused.headers["connection"]) == (415, "close")
    assert answer["predictions"][0]["label"] == "blue"
    assert named.status_code == 200
    assert places == {str(bento / "src")}


def test_another_runtime_comes_with_its_packages(
    build_bento: Callable[..., Path],
    encoded: Callable[..., bytes],
    serve: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino")
    bento = build_bento(tmp_path, "--runtime", "openvino")
    installed = pins(bento / "env/python/requirements.txt")
    assert installed["openvino"] == importlib.metadata.version("openvino")
    python = bentofile()["docker"]["python_version"]
    imported = {"openvino", *IMPORTED} - {"onnxruntime"}
    assert installed.keys() >= needed(python, "bentoml", *imported)
    assert "onnxruntime" not in installed
    with serve(
        "-m", "bentoml", "serve", str(bento), cwd=tmp_path, environment=environment
    ) as server:
        answer = httpx.post(f"{server.url}/predict", content=encoded("blue")).json()
    assert (answer["predictions"][0]["label"], answer["runtime"]) == ("blue", "openvino")


@pytest.mark.parametrize("name", ["ort-cuda", "tensorrt", "torch"])
def test_a_runtime_that_no_bento_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="ort-cpu, openvino"):
        requirements(name)


@pytest.mark.parametrize("name", [name for name, spec in RUNTIMES.items() if spec.in_bento])
def test_it_installs_its_runtime_with_all_that_needs(name: str) -> None:
    python, packages = bentofile()["docker"]["python_version"], RUNTIMES[name].in_bento
    names = {canonicalize_name(Requirement(line).name) for line in requirements(name)}
    assert needed(python, *packages) <= names
    assert ("onnxruntime" in names) == ("onnxruntime" in packages)


def test_its_image_installs_just_the_pins(bento: Path) -> None:
    python = bentofile()["docker"]["python_version"]
    steps = instructions(bento / "env/docker/Dockerfile")
    assert steps[0] == ("FROM", f"python:{python}-slim AS base-container")
    runs = [shlex.split(text) for name, text in steps if name == "RUN"]
    (venv,) = [words for words in runs if "venv" in words]
    assert venv[venv.index("--python") + 1] == python
    (install,) = [words for words in runs if "install" in words and "-r" in words]
    assert install[install.index("-r") + 1] == "$BENTO_PATH/env/python/requirements.txt"
    installed = pins(bento / "env/python/requirements.txt")
    assert installed == {
        **pins(REQUIREMENTS),
        "bentoml": importlib.metadata.version("bentoml"),
    }
    lines = (bento / "env/python/requirements.txt").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == len(installed)


def test_its_image_serves_all_addresses_as_no_root(bento: Path) -> None:
    steps = instructions(bento / "env/docker/Dockerfile")
    arguments = dict(text.split("=", 1) for name, text in steps if name == "ARG")
    variables = dict(text.split("=", 1) for name, text in steps if name == "ENV" and "=" in text)
    for each in bentofile()["envs"]:
        assert arguments[each["name"]] == each["value"]
        assert variables[each["name"]] == "$" + each["name"]
    names = [name for name, _ in steps]
    last_user = len(names) - 1 - names[::-1].index("USER")
    assert last_user < names.index("ENTRYPOINT")
    assert steps[last_user][1] == arguments["BENTO_USER"] != "root"
    assert int(arguments["BENTO_USER_UID"]) > 0
    (entrypoint,) = json.loads(dict(steps)["ENTRYPOINT"])
    place = Path(entrypoint).relative_to(arguments["BENTO_PATH"])
    assert 'exec bentoml "$@" "$BENTO_PATH"' in (bento / place).read_text()


def test_docker_runs_it_as_the_pods_do_and_lets_it_finish(bento: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    (line,) = re.findall("^docker run .*$", page, re.MULTILINE)
    words = shlex.split(line)
    asked, command = words[: words.index("IMAGE")], words[words.index("IMAGE") + 1 :]
    pods = yaml.safe_load((ROOT / "serving/kubernetes/base/deployment.yaml").read_text())
    (pod,) = pods["spec"]["template"]["spec"]["containers"]
    assert command == pod["args"]
    assert asked[asked.index("-w") + 1] == pod["workingDir"]
    assert int(asked[asked.index("--stop-timeout") + 1]) > GRACE_S
    _, inside = asked[asked.index("-p") + 1].split(":")
    assert ("EXPOSE", inside) in instructions(bento / "env/docker/Dockerfile")
    assert int(inside) == Settings().port


@pytest.mark.skipif(not CONSTRAINTS.exists(), reason="there is no constraints.txt")
def test_the_image_for_gpus_swaps_the_pinned_runtime() -> None:
    steps = instructions(GPU_DOCKERFILE)
    (words,) = [shlex.split(text) for name, text in steps if name == "RUN"]
    assert words[words.index("uninstall") + 1] in pins(REQUIREMENTS)
    python = bentofile()["docker"]["python_version"]
    assert needed(python, words[-1]) <= pins(CONSTRAINTS).keys()
    assert [text for name, text in steps if name == "USER"] == ["root", "bentoml"]


def test_the_page_names_the_runtimes_that_a_bento_can_hold() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    (sentence,) = re.findall(r"installed where it is built: ([^.]+)\.\n", page)
    able = [name for name, spec in RUNTIMES.items() if spec.in_bento]
    assert re.findall("`([^`]+)`", sentence) == able
