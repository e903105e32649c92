"""The manifests in serving/kubernetes, against Kubernetes' schemas and against the server."""

from __future__ import annotations

import copy
import dataclasses
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest
import yaml
from kubernetes_validate import ValidationError, latest_version, validate

from artifact.runtimes.base import list_runtimes
from core.errors import UserError
from serving.metrics import QUEUE_DEPTH
from serving.settings import GRACE_S, PREFIX, Settings

FOLDER = Path(__file__).resolve().parents[2] / "serving" / "kubernetes"
OLDEST = "1.30"  # preStop.sleep is of its time; serving/kubernetes/base/deployment.yaml says so

Manifest = dict[str, Any]


def read(name: str) -> Manifest:
    manifest = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(manifest, dict)
    return manifest


def merged(base: Any, patch: Any) -> Any:
    """Returns ``base`` with ``patch`` as kubectl merges: mappings by key, named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}
    if isinstance(base, list) and all(isinstance(each, dict) and "name" in each for each in base):
        named = {each["name"]: each for each in base}
        changed = {each["name"]: merged(named.get(each["name"]), each) for each in patch}
        return list({**named, **changed}.values())
    return patch


BASE = {
    manifest["kind"]: manifest
    for manifest in map(
        read, ("base/" + name for name in read("base/kustomization.yaml")["resources"])
    )
}
PATCH = read("gpu/deployment.yaml")
DEPLOYMENTS = {
    "base": BASE["Deployment"],
    "patched": merged(copy.deepcopy(BASE["Deployment"]), PATCH),
}
MANIFESTS = [*BASE.values(), DEPLOYMENTS["patched"]]


@pytest.fixture(params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest) -> Manifest:
    return DEPLOYMENTS[request.param]


def pod(deployment: Manifest) -> Manifest:
    spec = deployment["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def container(deployment: Manifest) -> Manifest:
    (only,) = pod(deployment)["containers"]
    assert isinstance(only, dict)
    return only


def environment_of(deployment: Manifest) -> dict[str, str]:
    """Returns the container's variables as the kubelet sets them; the Secret holds ``letmein``."""
    found = {}
    for each in container(deployment)["env"]:
        match each:
            case {"name": name, "value": str(value)}:
                found[name] = value
            case {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}}:
                kind, _, what = resource.partition(".")
                found[name] = container(deployment)["resources"][kind][what]
            case {"name": name, "valueFrom": {"secretKeyRef": {"key": "token"}}}:
                found[name] = "letmein"
            case _:
                raise AssertionError(each)
    return found


# What Kubernetes asks for


@pytest.mark.parametrize("version", [OLDEST, latest_version()])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_fits_the_schema(manifest: Manifest, version: str) -> None:
    assert version.startswith(validate(manifest, version, strict=True))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_an_unknown_field_does_not_fit(manifest: Manifest) -> None:
    wrong = {**manifest, "spec": {**manifest["spec"], "replica": 2}}
    with pytest.raises(ValidationError, match="replica"):
        validate(wrong, OLDEST, strict=True)


def test_needs_the_version_it_names() -> None:
    with pytest.raises(ValidationError, match="sleep"):
        validate(BASE["Deployment"], "1.28", strict=True)
    assert f"Kubernetes {OLDEST} or newer" in (FOLDER / "base/deployment.yaml").read_text()


def test_kustomizations_name_every_file() -> None:
    for folder in ("base", "gpu"):
        kustomization = read(f"{folder}/kustomization.yaml")
        patches = [each["path"] for each in kustomization.get("patches", [])]
        local = {name for name in kustomization["resources"] if not name.startswith("..")}
        there = {path.name for path in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert there == local | set(patches)
    assert read("gpu/kustomization.yaml")["resources"] == ["../base"]
    assert len(BASE) == 4  # no two of a kind, which the dictionary would hide


def number(quantity: object) -> float:
    """Returns the value of a Kubernetes quantity, such as ``4Gi``."""
    match = re.fullmatch(r"(\d+)(m|Ki|Mi|Gi)?", str(quantity))
    assert match, quantity
    return int(match[1]) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[match[2]]


def test_requests_and_limits_fit(deployment: Manifest) -> None:
    resources = container(deployment)["resources"]
    requests, limits = resources["requests"], resources["limits"]
    assert requests.keys() == {"cpu", "memory"} <= limits.keys()
    assert number(requests["cpu"]) == number(limits["cpu"])  # or threads would wait for cores
    assert 0 < number(requests["memory"]) <= number(limits["memory"])


def test_the_gpu_patch_changes_what_there_is() -> None:
    for key in ("apiVersion", "kind"):
        assert PATCH[key] == BASE["Deployment"][key]
    assert PATCH["metadata"] == {"name": BASE["Deployment"]["metadata"]["name"]}
    assert [each["name"] for each in pod(PATCH)["containers"]] == ["server"]
    gpu = container(DEPLOYMENTS["patched"])
    assert gpu["name"] == container(BASE["Deployment"])["name"] == "server"
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["image"] != container(BASE["Deployment"])["image"]
    assert environment_of(DEPLOYMENTS["patched"])["POCKETNETS_RUNTIME"] in list_runtimes()


# What the manifests say of each other


def test_selectors_match_the_pods(deployment: Manifest) -> None:
    template = deployment["spec"]["template"]
    selectors = [
        BASE["Service"]["spec"]["selector"],
        BASE["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in template["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= template["metadata"]["labels"].items()


def test_ports_agree(deployment: Manifest) -> None:
    (port,) = container(deployment)["ports"]
    assert port["containerPort"] == Settings().port
    (service_port,) = BASE["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(deployment)[probe]["httpGet"]["port"] == port["name"]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_the_autoscaler_asks_for_the_queue(deployment: Manifest) -> None:
    spec = BASE["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]  # applying again would undo what it scaled
    assert 1 < spec["minReplicas"] < spec["maxReplicas"]  # one may be drained
    ((metric,), (rule,)) = spec["metrics"], read("prometheus-adapter.yaml")["rules"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"] == QUEUE_DEPTH
    assert rule["seriesQuery"].startswith(QUEUE_DEPTH + "{")
    threads = Settings.from_environment(environment_of(deployment)).threads
    assert metric["pods"]["target"]["averageValue"] == str(threads)


def test_what_is_mounted_is_there(deployment: Manifest) -> None:
    volumes = {each["name"] for each in pod(deployment)["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in container(deployment)["volumeMounts"]}
    assert mounts.keys() == volumes
    assert Path(environment_of(deployment)["BENTOML_HOME"]).is_relative_to(mounts["tmp"])


# What the server asks for


def test_variables_are_settings(deployment: Manifest) -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    ours = {name for name in environment_of(deployment) if name.startswith(PREFIX)}
    assert ours <= {PREFIX + name.upper() for name in fields}
    settings = Settings.from_environment(environment_of(deployment))
    assert settings.threads == int(container(deployment)["resources"]["limits"]["cpu"])


def test_no_service_sets_ours(deployment: Manifest) -> None:
    name = BASE["Service"]["metadata"]["name"]
    injected = {f"{name.upper()}_PORT": "tcp://10.0.0.1:80"}  # the kubelet's, for old programs
    with pytest.raises(UserError, match="port"):
        Settings.from_environment(injected)
    assert pod(deployment)["enableServiceLinks"] is False


def test_there_is_time_to_finish(deployment: Manifest) -> None:
    assert container(deployment)["args"] == ["python", "-m", "serving.launch"]
    before = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(deployment)["terminationGracePeriodSeconds"] > before + GRACE_S


def test_runs_as_the_user_of_the_image(deployment: Manifest, bento: Path) -> None:
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    security = pod(deployment)["securityContext"]
    for key, argument in (("runAsUser", "BENTO_USER_UID"), ("runAsGroup", "BENTO_USER_GID")):
        assert f"ARG {argument}={security[key]}\n" in dockerfile
    assert f"EXPOSE {container(deployment)['ports'][0]['containerPort']}\n" in dockerfile


def test_has_no_rights_it_does_not_need(deployment: Manifest) -> None:
    assert pod(deployment)["automountServiceAccountToken"] is False
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    assert pod(deployment)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def image_variables(bento: Path) -> dict[str, str]:
    """Returns the variables that a container of ``bento`` starts with."""
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", dockerfile, re.MULTILINE))
    variables = dict(re.findall(r"^ENV (\w+)=(.*)$", dockerfile, re.MULTILINE))
    return {name: Template(text).safe_substitute(arguments) for name, text in variables.items()}


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_container_serves_writes_to_tmp_only_and_replaces_its_worker(
    bento: Path,
    encoded: Callable[..., bytes],
    serve: Callable[..., Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    deployment = BASE["Deployment"]
    home, tmp = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    tmp.mkdir()
    asked = environment_of(deployment)
    asked["BENTOML_HOME"] = asked["BENTOML_HOME"].replace("/tmp", str(tmp), 1)
    variables = {
        **image_variables(bento),
        **asked,
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "BENTO_PATH": str(bento),
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "POCKETNETS_HOST": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",  # on a read-only disk Python writes none, and goes on
    }
    before = files_below(bento)
    enter = "import os, sys; os.execv('/bin/bash', ['bash', *sys.argv[1:]])"
    entrypoint = str(bento / "env/docker/entrypoint.sh")
    arguments = ("-c", enter, entrypoint, *container(deployment)["args"])
    place = image_variables(bento)["BENTO_PATH"]
    folder = bento / Path(container(deployment)["workingDir"]).relative_to(place)
    with serve(*arguments, cwd=folder, environment=variables) as server:
        headers = {"Authorization": f"Bearer {asked['POCKETNETS_TOKEN']}"}
        sent = {"image": ("a.png", encoded("blue"))}
        assert httpx.post(f"{server.url}/predict", files=sent).status_code == 401
        answer = httpx.post(f"{server.url}/predict", files=sent, headers=headers).json()
        assert answer["predictions"][0]["label"] == "blue"
        # The kubelet and Prometheus have no token.
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container(deployment)[probe]["httpGet"]["path"]
            assert httpx.get(server.url + path).status_code == 200
        template = deployment["spec"]["template"]
        metrics = server.url + template["metadata"]["annotations"]["prometheus.io/path"]
        depths = re.findall(rf"^{QUEUE_DEPTH}\{{.*\}} (.*)$", httpx.get(metrics).text, re.MULTILINE)
        assert depths == ["0.0"]
        assert files_below(bento) == before
        assert not files_below(home)
        assert files_below(tmp)
        worker = server.family[-1]
        worker.send_signal(signal.SIGKILL)
        # The listening socket stays open: who comes meanwhile waits, and is answered.
        found = httpx.post(f"{server.url}/predict", files=sent, headers=headers, timeout=60)
        assert found.status_code == 200
        assert worker.pid not in [child.pid for child in server.family[0].children()]
        assert server.stop(signal.SIGTERM) == 0
