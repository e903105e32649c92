"""The OpenAPI document: valid, true of every answer, and no request it allows breaks anything."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from live_page import served
from schemathesis.specs.openapi.definitions import OPENAPI_31

from artifact.artifact import Artifact

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
Environment = dict[str, str]
Serve = Callable[..., Any]

EXAMPLES = 8  # requests of each kind for each operation
TOKEN = "s3cret"

# Not asked: that an unlisted text field of a form is refused, and that any bytes in the field of an
# image are accepted.
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "unsupported_method"),
    *("allow_header_conformance", "ignored_auth"),
)


def variables(artifact: Path, deadline_ms: int) -> Environment:
    """Returns variables of a server that wants a token and takes little: all answers can be had."""
    settings = {
        "ARTIFACT": artifact,
        "TOKEN": TOKEN,
        "MAX_BYTES": 50_000,
        "MAX_PIXELS": 10_000,
        "DEADLINE_MS": deadline_ms,
        "THREADS": 1,
    }
    return {f"POCKETNETS_{name}": str(value) for name, value in settings.items()}


@pytest.fixture(scope="module")
def server(
    artifact_path: Path,
    serve: Serve,
    environment_at: Callable[[Path], Environment],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Yields such a server, with time for whatever is asked."""
    environment = environment_at(tmp_path_factory.mktemp("home"))
    environment |= variables(artifact_path, deadline_ms=5000)
    with serve("-m", "serving", cwd=ROOT, environment=environment) as started:
        yield started


def test_schemathesis_finds_nothing(server: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1", "--no-color"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--warnings", "off"),
            *("--request-timeout", "30", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tried = re.search(r"(\d+) generated", done.stdout)
    assert tried, done.stdout
    assert int(tried[1]) > 60


class Described:
    """What the document says of answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def check(self, response: httpx.Response) -> None:
        """Holds an answer to the schema of its path, method and status."""
        operation = self.document["paths"][response.url.path][response.request.method.lower()]
        described = operation["responses"][str(response.status_code)]
        for name, header in described.get("headers", {}).items():
            self._validate(response.headers[name], header["schema"])
        kind = response.headers["content-type"].partition(";")[0]
        schema = described["content"][kind]["schema"]
        self._validate(response.json() if kind.endswith("json") else response.text, schema)

    def check_examples(self) -> int:
        """Returns how many examples there are; all are what they are examples of."""
        count = 0
        for operations in self.document["paths"].values():
            for operation in operations.values():
                for body in (operation.get("requestBody"), *operation["responses"].values()):
                    for content in body["content"].values() if body else ():
                        if "example" in content:
                            self._validate(content["example"], content["schema"])
                            count += 1
        return count

    def _validate(self, value: object, schema: dict[str, Any]) -> None:
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)


def test_the_document_is_valid(server: Any) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    jsonschema.Draft202012Validator(OPENAPI_31).validate(document)
    broken = json.loads(json.dumps(document))
    del broken["paths"]["/predict"]["post"]["responses"]["200"]["description"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(OPENAPI_31).validate(broken)
    assert Described(document).check_examples() >= 4
    found = json.dumps(document)
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', found):
        target: Any = document
        for name in reference.split("/"):
            target = target[name]


def test_every_answer_is_as_described(
    artifact_path: Path, serve: Serve, environment: Environment, encoded: Encoded
) -> None:
    environment |= variables(artifact_path, deadline_ms=2000)
    image, kind = encoded(), {"content-type": "image/png"}
    answers: list[httpx.Response] = []
    with (
        serve("-m", "serving", cwd=ROOT, environment=environment) as server,
        httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}) as client,
    ):
        described = Described(client.get("/openapi.json").json())

        def post(data: Any, path: str = "/predict", headers: Any = kind) -> None:
            answers.append(client.post(path, content=data, headers=headers))

        post(image)
        post(b"no image")
        post(bytes(50_001))
        post(encoded(size=(200, 200)))
        post(image, "/predict_batch")
        post(image, "/predict?top_k=0")
        post(image, headers={**kind, "authorization": "Bearer wrong"})
        post(_slowly(image))
        several = [("image", ("a", image)), ("image", ("b", b"no image"))]
        answers.append(client.post("/predict_batch", files=several))
        text = base64.b64encode(image).decode()
        answers.append(client.post("/predict", json={"image": text, "top_k": 1}))
        answers.append(client.post("/predict", json={"images": [text]}))
        answers.append(client.post("/predict_batch", json={"images": [text, "no base64!"]}))
        post(image, headers={**kind, "content-encoding": "br"})
        post(image, "/predict?topk=1")
        post(image, "/predict_batch?top_k=1&top_k=1")
        for path in ("/model", "/model?top_k=1", "/healthz", "/readyz?probe=1", "/metrics?x"):
            answers.append(client.get(path))
    found = [answer.status_code for answer in answers]
    assert found[:8] == [200, 400, 413, 413, 415, 422, 401, 408]
    assert found[8:13] == [200, 200, 400, 200, 415]
    assert found[13:] == [400, 400, 200, 400, 200, 200, 200]
    for answer in answers:
        described.check(answer)


def _slowly(data: bytes) -> Any:
    import time

    yield data
    time.sleep(4)  # twice the deadline
    yield data


def test_an_answer_that_is_late_is_as_described(artifact_path: Path, encoded: Encoded) -> None:
    image = encoded(size=(1000, 1000))  # takes many times the deadline
    limits = {"max_pixels": 10**6, "max_bytes": 10**7}
    with (
        served(Artifact.load(artifact_path), deadline_ms=2, **limits) as site,
        httpx.Client(base_url=site.url, headers={"content-type": "image/png"}) as client,
    ):
        described = Described(client.get("/openapi.json").json())
        answers = [client.post("/predict", content=image) for _ in "12345"]
    late = [answer for answer in answers if answer.status_code == 504]
    assert late
    for answer in late:
        described.check(answer)


def test_a_refusal_of_what_does_not_fit_is_as_described(
    artifact_path: Path, encoded: Encoded
) -> None:
    kind = {"content-type": "image/png"}
    with (
        served(Artifact.load(artifact_path), queue_size=1, max_images=1) as site,
        httpx.Client(base_url=site.url, headers=kind) as client,
        ExitStack() as stack,
    ):
        described = Described(client.get("/openapi.json").json())
        address = client.base_url
        lines = ["POST /predict HTTP/1.1", "Host: x", "Content-Length: 100"]
        lines += [f"{name}: {value}" for name, value in kind.items()]
        refused = None
        for _ in range(100):  # until uploads that have begun take all there is room for
            begun = socket.create_connection((address.host, address.port))
            stack.callback(begun.close)
            begun.sendall("\r\n".join([*lines, "", "x"]).encode())
            refused = client.post("/predict", content=encoded())
            if refused.status_code != 200:
                break
    assert refused is not None
    assert refused.status_code == 429
    described.check(refused)
