"""Public clients of the Open Inference Protocol against a running server.

They are not installed by ``make setup``: pip install 'tritonclient[http,grpc]' kserve, beside the
rest. Those of gRPC run in processes of their own, as no process can import both.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.artifact import Artifact

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of their own imports

ROOT = Path(__file__).resolve().parents[2]
MODEL = "channels-colours"
TOKEN = "s3cret"


def known() -> dict[str, str]:
    """Returns the header of who knows the token; clients add their own to it."""
    return {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(
    artifact_path: Path,
    serve: Callable[..., Any],
    environment_at: Callable[[Path], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    environment = environment_at(tmp_path_factory.mktemp("home"))
    environment["POCKETNETS_TOKEN"] = TOKEN
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        grpc_port = probe.getsockname()[1]
    arguments = ["-m", "serving", "--artifact", str(artifact_path), "--grpc-port", str(grpc_port)]
    with serve(*arguments, cwd=ROOT, environment=environment) as started:
        started.grpc_port = grpc_port
        yield started


@pytest.mark.parametrize("as_bytes", [True, False])
def test_tritonclient(
    server: Any, artifact_path: Path, encoded: Callable[..., bytes], as_bytes: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    pixels, logits = Artifact.load(artifact_path).golden()
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL, headers=known())
        assert client.get_server_metadata(headers=known())["name"] == "pocketnets"
        told = client.get_model_metadata(MODEL, "onnx-fp32", headers=known())
        assert [each["name"] for each in told["inputs"]] == ["pixels", "image"]
        tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels, binary_data=as_bytes)
        wanted = [triton.InferRequestedOutput("logits", binary_data=as_bytes)]
        wanted += [triton.InferRequestedOutput("scores", binary_data=as_bytes, class_count=1)]
        found = client.infer(MODEL, [tensor], outputs=wanted, headers=known(), request_id="7")
        assert found.get_response()["id"] == "7"
        assert np.allclose(found.as_numpy("logits"), logits, atol=1e-4)
        labels = [text.decode() if as_bytes else text for text in found.as_numpy("scores").ravel()]
        assert [str(label).rpartition(":")[2] for label in labels] == ["red", "green", "blue"]
        files = np.array([encoded("red"), encoded("blue")], dtype=object)
        image = triton.InferInput("image", [2], "BYTES")
        image.set_data_from_numpy(files)
        packed = client.infer(MODEL, [image], headers=known(), request_compression_algorithm="gzip")
        assert packed.as_numpy("scores").argmax(axis=1).tolist() == [0, 2]
        wrong = triton.InferInput("pixels", [1, 2], "UINT8")
        wrong.set_data_from_numpy(np.zeros((1, 2), np.uint8))
        with pytest.raises(Exception, match="shape of pixels"):
            client.infer(MODEL, [wrong], headers=known())


@pytest.mark.parametrize("as_bytes", [True, False])
def test_kserve(server: Any, artifact_path: Path, as_bytes: bool) -> None:
    kserve = pytest.importorskip("kserve")
    pixels, logits = Artifact.load(artifact_path).golden()

    async def run() -> Any:
        config = kserve.RESTConfig(protocol="v2")
        async with kserve.InferenceRESTClient(config) as client:
            assert await client.is_server_live(server.url)
            assert await client.is_server_ready(server.url)
            assert await client.is_model_ready(server.url, MODEL, headers=known())
            tensor = kserve.InferInput("pixels", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(pixels, binary_data=as_bytes)
            request = kserve.InferRequest(MODEL, [tensor], request_id="7")
            return await client.infer(server.url, request, model_name=MODEL, headers=known())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = asyncio.run(run())
    assert found.id == "7"
    assert np.allclose(found.outputs[0].as_numpy(), logits, atol=1e-4)


TRITON = """
import sys
from pathlib import Path
import numpy as np
import tritonclient.grpc as triton

address, token, folder = sys.argv[1:]
known = {"authorization": f"Bearer {token}"}
pixels = np.load(Path(folder, "golden_pixels.npy"))
logits = np.load(Path(folder, "golden_logits.npy"))
with triton.InferenceServerClient(address) as client:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("channels-colours", headers=known)
    assert "model_repository" in client.get_server_metadata(headers=known).extensions
    told = client.get_model_metadata("channels-colours", "onnx-fp32", headers=known)
    assert [each.name for each in told.inputs] == ["pixels", "image"]
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    wanted = [triton.InferRequestedOutput("logits"), triton.InferRequestedOutput("scores", 1)]
    found = client.infer(
        "channels-colours", [tensor], outputs=wanted, headers=known, request_id="7",
        compression_algorithm="gzip",
    )
    assert found.get_response().id == "7"
    assert np.allclose(found.as_numpy("logits"), logits, atol=1e-4)
    labels = [text.decode().rpartition(":")[2] for text in found.as_numpy("scores").ravel()]
    assert labels == ["red", "green", "blue"], labels
    client.load_model("channels-colours", headers=known)
    (index,) = client.get_model_repository_index(headers=known).models
    assert (index.name, index.version, index.state) == ("channels-colours", "onnx-fp32", "READY")
    try:
        client.unload_model("channels-colours", headers=known)
        raise AssertionError("the default was unloaded")
    except triton.InferenceServerException as error:
        assert "is the default" in error.message()
"""

KSERVE = """
import asyncio
import sys
from pathlib import Path
import kserve
import numpy as np

address, token, folder = sys.argv[1:]
known = (("authorization", f"Bearer {token}"),)
pixels = np.load(Path(folder, "golden_pixels.npy"))
logits = np.load(Path(folder, "golden_logits.npy"))

async def run():
    async with kserve.InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("channels-colours", headers=known)
        for as_bytes in (True, False):
            tensor = kserve.InferInput("pixels", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(pixels, binary_data=as_bytes)
            request = kserve.InferRequest("channels-colours", [tensor], request_id="7")
            found = await client.infer(request, headers=known)
            assert found.id == "7"
            assert np.allclose(found.outputs[0].as_numpy(), logits, atol=1e-4)

asyncio.run(run())
"""


@pytest.mark.parametrize(
    ("package", "code"), [("tritonclient", TRITON), ("kserve", KSERVE)], ids=["triton", "kserve"]
)
def test_over_grpc(server: Any, artifact_path: Path, package: str, code: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    address = f"127.0.0.1:{server.grpc_port}"
    arguments = [sys.executable, "-c", code, address, TOKEN, str(artifact_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_tritonclient_loads_and_unloads_models(server: Any) -> None:
    triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        client.load_model(MODEL, headers=known())
        (listed,) = client.get_model_repository_index(headers=known())
        assert (listed["name"], listed["version"], listed["state"]) == (MODEL, "onnx-fp32", "READY")
        with pytest.raises(Exception, match="is the default"):
            client.unload_model(MODEL, headers=known())
        with pytest.raises(Exception, match="send no parameters"):
            client.load_model(MODEL, headers=known(), config="{}")
