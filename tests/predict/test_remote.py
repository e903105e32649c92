from __future__ import annotations

import http.server
import importlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from predict.classifier import Classifier
from predict.pipeline import classify
from predict.sources import Passed, find_items, find_sources

fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("aiohttp", reason="the extra remote is not installed")

Png = Callable[[str], bytes]
Put = Callable[..., Path]
MOST = 10_000


def labels(artifact: Path, *names: str, passed: Passed | None = None) -> dict[str, str | None]:
    """Returns the label of each image, or why there is none, by its path."""
    paths = find_items(find_sources(names, MOST), Passed() if passed is None else passed)
    with Classifier.open(artifact, threads=2, batch_size=2) as classifier:
        rows = [outcome.row for outcome in classify(classifier, paths)]
    return {row.path: row.prediction.label if row.prediction else row.error for row in rows}


@pytest.fixture
def bucket() -> Iterator[Callable[[str, bytes], None]]:
    """Returns a function that writes a file of ``memory://bucket``."""
    files = fsspec.filesystem("memory")
    yield lambda path, data: files.pipe(f"/bucket/{path}", data)
    files.rm("/bucket", recursive=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(here: Path) -> Iterator[str]:
    """Returns the address of a server of the files below here."""
    handler = partial(Quiet, directory=str(here))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_folder_in_a_bucket(
    artifact_path: Path, bucket: Callable[[str, bytes], None], png: Png
) -> None:
    for name, data in (
        ("photos/b.png", png("red")),
        ("photos/a/2.png", png("lime")),
        ("photos/a/1.png", png("blue")),
        ("photos/.hidden.png", png("red")),
        ("photos/labels.csv", b"text"),
        ("photos/c.png", b"text"),
        ("photos/large.png", b"0" * (MOST + 1)),
    ):
        bucket(name, data)
    passed = Passed()
    answers = labels(artifact_path, "memory://bucket/photos", passed=passed)
    top = "memory:///bucket/photos"
    assert [path.removeprefix(f"{top}/") for path in answers] == [
        *("b.png", "c.png", "large.png", "a/1.png", "a/2.png")
    ]
    assert answers[f"{top}/b.png"] == "red"
    assert answers[f"{top}/a/1.png"] == "blue"
    assert answers[f"{top}/a/2.png"] == "green"
    assert "limit of 10000 bytes" in (answers[f"{top}/large.png"] or "")
    assert passed == {"hidden or left by machines": 1, "not meant as an image": 1}
    assert labels(artifact_path, "memory://bucket/photos/a/*.png") == {
        f"{top}/a/1.png": "blue",
        f"{top}/a/2.png": "green",
    }
    assert labels(artifact_path, "memory://bucket/photos/b.png") == {f"{top}/b.png": "red"}


def test_an_archive_and_lists_in_a_bucket(
    artifact_path: Path, bucket: Callable[[str, bytes], None], png: Png, here: Path
) -> None:
    import tarfile
    import zipfile

    with zipfile.ZipFile("a.zip", "w") as archive, tarfile.open("b.tar.gz", "w:gz") as tar:
        archive.writestr("1.png", png("red"))
        Path("2.png").write_bytes(png("blue"))
        tar.add("2.png")
    for name in ("a.zip", "b.tar.gz", "2.png"):
        bucket(name, Path(name).read_bytes())
    bucket("list.txt", b"2.png\nmemory://bucket/2.png\nnone.png\n")
    bucket("list.csv", b"label,path\nx,2.png\n")
    top = "memory:///bucket"
    assert labels(artifact_path, "memory://bucket/a.zip") == {f"{top}/a.zip!1.png": "red"}
    assert labels(artifact_path, "memory://bucket/b.tar.gz") == {f"{top}/b.tar.gz!2.png": "blue"}
    assert labels(artifact_path, "memory://bucket/list.csv") == {"2.png": "blue"}
    listed = labels(artifact_path, "memory://bucket/list.txt")
    assert "cannot be read" in (listed.pop("none.png") or "")
    assert listed == {"2.png": "blue", "memory://bucket/2.png": "blue"}


def test_images_over_http(artifact_path: Path, put: Put, site: str) -> None:
    put("a.png", "red")
    put("large.png", b"0" * (MOST + 1))
    put("list.txt", f"{site}/a.png\n{site}/none.png\n".encode())
    answers = labels(artifact_path, f"{site}/a.png?x=1", f"{site}/large.png", "list.txt")
    assert answers.pop(f"{site}/a.png?x=1") == "red"
    assert answers.pop(f"{site}/a.png") == "red"
    assert "limit of 10000 bytes" in (answers.pop(f"{site}/large.png") or "")
    none = answers.pop(f"{site}/none.png") or ""
    assert none.startswith("cannot be read ")
    assert "404" in none
    assert answers == {}


def test_a_server_that_is_not_there_cannot_be_reached(artifact_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (reason,) = labels(artifact_path, f"{address}/a.png").values()
        with pytest.raises(UserError, match=rf"^{address}/list.csv: cannot be reached ") as raised:
            find_sources([f"{address}/list.csv"], MOST)
        archive = find_items(find_sources([f"{address}/a.zip"], MOST), Passed())
        with pytest.raises(UserError, match="cannot be reached"):
            next(archive).load()
    assert (reason or "").startswith("cannot be reached ")
    assert "\n" not in str(reason) + str(raised.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://bucket/nowhere", "nothing is there"),
        ("memory://bucket/*.png", "nothing is there"),
        ("nothing://bucket", "nothing"),
    ],
)
def test_what_is_not_there_is_refused(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        find_sources([address], MOST)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "package"),
    [("s3://bucket/a.png", "s3fs"), ("gs://bucket", "gcsfs"), ("abfs://bucket", "adlfs")],
)
def test_a_package_that_is_missing_is_named(address: str, package: str, put: Put) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(UserError, match=f"pip install {package}"):
        find_sources([address], MOST)
    put("list.txt", address.encode())
    (item,) = find_items(find_sources(["list.txt"], MOST), Passed())
    with pytest.raises(UserError, match=f"pip install {package}"):
        item.load()


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"\[remote\]"):
        find_sources(["s3://bucket"], MOST)
