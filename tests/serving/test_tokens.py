from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from artifact.artifact import Artifact
from core.errors import UserError
from serving import tokens as tokens_module
from serving.app import create_app
from serving.predictor import Predictor
from serving.routes import Route
from serving.settings import Settings
from serving.token_command import MakeToken
from serving.tokens import Token, Tokens, digest_of, read_tokens


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def make(file: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Returns a function that adds a token to the file and returns it."""

    def make(name: str, **flags: Any) -> str:
        MakeToken(name=name, file=file, **flags)()
        return capsys.readouterr().out.strip()

    return make


@pytest.fixture
def client(artifact_path: Path, file: Path) -> Iterator[Callable[..., TestClient]]:
    """Returns a function that returns a client of a service with the file."""
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            chosen = Settings(artifact=artifact_path, threads=1, tokens=file, **settings)
            predictor = stack.enter_context(Predictor(chosen, Artifact.load(artifact_path)))
            return TestClient(create_app(predictor))

        yield start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns the time that the tokens see, in seconds; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr(tokens_module.time, "monotonic", lambda: now[0])
    return now


def ask(client: TestClient, token: str, path: str = "/model", method: str = "GET") -> Any:
    return client.request(method, path, headers={"authorization": f"Bearer {token}"})


def test_the_file_has_digests_and_no_token(file: Path, make: Callable[..., str]) -> None:
    alice, bob = make("alice"), make("bob", admin=True, per_minute=60)
    assert alice not in file.read_text()
    assert bob not in file.read_text()
    assert read_tokens(file) == {
        digest_of(alice): Token(name="alice", sha256=digest_of(alice)),
        digest_of(bob): Token(name="bob", sha256=digest_of(bob), admin=True, per_minute=60),
    }


def test_each_token_of_the_file_and_the_single_one_are_known(
    make: Callable[..., str], client: Callable[..., TestClient]
) -> None:
    alice, bob = make("alice"), make("bob")
    service = client(token="single")
    for token in (alice, bob, "single"):
        assert ask(service, token).status_code == 200
    for header in (f"bearer {alice}", f"BEARER  {alice} "):  # RFC 9110
        assert service.get("/model", headers={"authorization": header}).status_code == 200
    for token in ("", "x", digest_of(alice)):
        assert ask(service, token).status_code == 401
    assert service.get("/model").status_code == 401
    assert service.get("/readyz").status_code != 401


def test_a_last_line_without_its_end_counts(file: Path, make: Callable[..., str]) -> None:
    alice = make("alice")
    file.write_bytes(file.read_bytes().rstrip())
    make("bob")
    assert [token.name for token in read_tokens(file).values()] == ["alice", "bob"]
    assert Tokens(None, file).find(f"Bearer {alice}".encode()) is not None
    file.write_text("")
    assert Tokens(None, file).find(f"Bearer {alice}".encode()) is None


def test_a_change_of_the_file_is_followed_and_a_broken_one_is_not(
    file: Path,
    make: Callable[..., str],
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    alice = make("alice")
    tokens = Tokens(None, file)
    header = f"Bearer {alice}".encode()
    assert tokens.find(header) is not None
    bob = f"Bearer {make('bob')}".encode()
    assert tokens.find(bob) is None  # within the second
    clock[0] += 2
    assert tokens.find(bob) is not None
    whole = file.read_bytes()
    file.write_text("nonsense\n")
    clock[0] += 2
    assert tokens.find(header) is not None
    assert "the tokens before stay" in capsys.readouterr().err
    file.write_bytes(whole.split(b"\n", 1)[1])  # without alice
    os.utime(file, ns=(1, 1))
    clock[0] += 2
    assert tokens.find(header) is None
    assert tokens.find(bob) is not None


def test_a_limit_lets_as_many_through_as_it_says_and_stops_no_other(
    make: Callable[..., str], file: Path, clock: list[float]
) -> None:
    make("slow", per_minute=60)
    make("free")
    slow, free = (
        next(t for t in read_tokens(file).values() if t.name == n) for n in ("slow", "free")
    )
    tokens = Tokens(None, file)
    passed = 0
    for _ in range(6000):  # a minute, a hundred times a second
        passed += tokens.wait(slow) == 0
        assert tokens.wait(free) == 0
        clock[0] += 0.01
    assert 60 <= passed <= 71  # and ten that were saved up
    assert 0 < tokens.wait(slow) <= 1
    clock[0] += tokens.wait(slow)
    assert tokens.wait(slow) == 0


def test_workers_share_a_limit(make: Callable[..., str], file: Path, clock: list[float]) -> None:
    make("slow", per_minute=60)
    (slow,) = read_tokens(file).values()
    both = [Tokens(None, file, workers=2) for _ in range(2)]
    passed = 0
    for _ in range(6000):
        passed += sum(tokens.wait(slow) == 0 for tokens in both)
        clock[0] += 0.01
    assert 60 <= passed <= 72


def test_over_the_limit_is_429_with_the_seconds_to_wait(
    make: Callable[..., str], client: Callable[..., TestClient], clock: list[float]
) -> None:
    token = make("slow", per_minute=6)
    service = client()
    assert ask(service, token).status_code == 200
    refused = ask(service, token)
    assert (refused.status_code, refused.json()["error"]) == (429, "rate_limit")
    assert refused.headers["retry-after"] == "10"
    clock[0] += 10
    assert ask(service, token).status_code == 200


def test_only_an_administrators_token_changes_models_and_each_try_leaves_a_line(
    make: Callable[..., str],
    client: Callable[..., TestClient],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, admin = make("plain"), make("boss", admin=True)
    service = client()
    path = "/models/colours/promote"
    assert ask(service, plain, path, "POST").json()["error"] == "not_admin"
    assert ask(service, admin, path, "POST").status_code == 404  # there is no such model
    assert ask(service, "wrong", path, "POST").status_code == 401
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["change"] for line in lines] == [None, {}, {}, None]
    assert [(line["event"], line["token"], line["status"], line["path"]) for line in lines] == [
        ("admin", "plain", 403, path),
        ("admin", "boss", None, path),  # before the change
        ("admin", "boss", 404, path),
        ("admin", None, 401, path),
    ]


def test_routes_that_change_something_are_administrators(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Route] = []
    init = Route.__init__

    def noted(route: Route, *args: Any, **options: Any) -> None:
        init(route, *args, **options)
        made.append(route)

    monkeypatch.setattr(Route, "__init__", noted)
    create_app(Predictor(Settings(artifact=artifact_path), Artifact.load(artifact_path)))
    admin = {route.path.rpartition("/")[2] for route in made if route.admin}
    assert {"load", "unload", "promote"} <= admin
    asks = {"predict", "predict_batch", "infer", "index"}
    others = {route.path.rpartition("/")[2] for route in made if not route.admin}
    assert asks <= others
    posts = {route.path.rpartition("/")[2] for route in made if route.method == "POST"}
    assert posts - asks <= admin


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x\n", "line 1"),
        (json.dumps({"name": "a", "sha256": "0" * 64, "admin": "yes"}), "admin"),
        (json.dumps({"name": "a", "sha256": "0" * 64, "ad": True}), "ad"),
        (json.dumps({"name": "a\n", "sha256": "0" * 64}), "name"),
        ('{"name": "a", "sha256": "00"}\n', "sha256"),
        ((json.dumps({"name": "a", "sha256": "0" * 64}) + "\n") * 2, "comes twice"),
    ],
)
def test_a_broken_file_stops_the_start_in_one_line(file: Path, content: str, words: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        Tokens(None, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a b"], "name is 'a b'"),
        (["alice", "--per-minute", "0"], "--per-minute is 0"),
        (["known"], "has a token of known"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_and_changes_nothing(
    file: Path,
    make: Callable[..., str],
    command: Callable[..., subprocess.CompletedProcess[str]],
    arguments: list[str],
    words: str,
) -> None:
    make("known")
    before = file.read_bytes()
    ended = command("pocketnets", "token", *arguments, "--file", str(file))
    assert ended.returncode == 1
    assert words in ended.stderr
    assert file.read_bytes() == before
