from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from predict import command as predict_command
from predict.classifier import Classifier
from predict.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]
Put = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]

pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
pyarrow_csv = pytest.importorskip("pyarrow.csv")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def predict(command: Command, artifact_path: Path) -> Command:
    """Returns what does as ``python -m predict ARTIFACT ARGUMENTS`` here."""
    return lambda *arguments: command("predict", str(artifact_path), *arguments)


@pytest.fixture
def photos(put: Put) -> Path:
    """Returns a folder of a red, a green and a blue image, and a text."""
    for name, colour in (("a", "red"), ("b,\u20ac", "lime"), ("d", "blue")):
        put(f"photos/{name}.png", colour)
    put("photos/c.png", b"text")
    return Path("photos")


def table(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a CSV or Parquet file, as a reader that is not ours sees them."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]
    rows: list[dict[str, Any]] = pyarrow_csv.read_csv(path).to_pylist()
    return [{name: None if cell == "" else cell for name, cell in row.items()} for row in rows]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_table_of_rows(predict: Command, photos: Path, name: str) -> None:
    ran = predict(str(photos), "--top-k", "2", "--out", f"new/{name}")
    assert (ran.returncode, ran.stdout) == (0, f"new/{name}\n")
    assert "4 images, 1 failed" in ran.stderr
    out = Path("new", name)
    assert list(out.parent.iterdir()) == [out]  # nothing is left beside it
    red, green, bad, blue = table(out)
    assert list(red) == ["path", "label", "score", "label_2", "score_2", "error"]
    assert [row["path"] for row in (red, green, bad, blue)] == [
        f"photos/{each}.png" for each in ("a", "b,\u20ac", "c", "d")
    ]
    assert [row["label"] for row in (red, green, bad, blue)] == ["red", "green", None, "blue"]
    assert "not a" in bad["error"]
    assert {bad[each] for each in ("score", "label_2", "score_2")} == {None}
    with Classifier.open(sys.argv[1]) as classifier:
        found = classifier(photos / "a.png", top_k=2)
    assert [(red["label"], red["score"]), (red["label_2"], red["score_2"])] == list(found.top)
    assert red["error"] is None


def test_lines_of_json(predict: Command, photos: Path) -> None:
    ran = predict(str(photos), "--out", "rows.jsonl", "--strict")
    assert ran.returncode == 1  # one of them is no image
    lines = Path("rows.jsonl").read_text().splitlines()
    red, green, bad, blue = map(json.loads, lines)
    assert [row["predictions"][0]["label"] for row in (red, green, blue)] == [
        *("red", "green", "blue")
    ]
    assert {each["index"] for each in red["predictions"]} == {0, 1, 2}
    assert (red["error"], bad["predictions"]) == (None, [])
    printed = predict(str(photos))
    assert printed.stdout.splitlines() == lines
    assert printed.returncode == 0


def test_lines_for_people(
    predict: Command, photos: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("photos/e\x1b[31m\n.png", "red")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = predict(str(photos), "--top-k", "1").stdout
    assert out.splitlines()[0] == "photos/a.png: red 100.0 %"
    assert len(out.splitlines()) == 5
    assert "\x1b" not in out


def test_the_bar_counts(
    artifact_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    import rich.console

    monkeypatch.setattr(rich.console.Console, "is_terminal", property(lambda self: True))
    monkeypatch.setenv("COLUMNS", "100")
    ran = command("predict", str(artifact_path), str(photos), "--out", "rows.csv")
    assert "images/s" in ran.stderr
    assert "4/4" in ran.stderr or "4/?" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no images"),
        (["nowhere"], "nowhere"),
        (["photos", "--out", "rows.xls"], ".parquet"),
        (["photos", "--out", "photos.csv/"], "photos.csv"),
        (["photos", "--out", f"{'x' * 250}.csv"], "File name too long"),
        (["photos", "--out", "photos/a.png/rows.csv"], "File exists: 'photos/a.png'"),
        (["photos", "--top-k", "0"], "--top-k is 0"),
        (["photos", "--max-pixels", "0"], "--max-pixels is 0"),
        (["photos", "--max-pixels", "99999999"], "--max-pixels is 99999999"),
        (["photos", "--max-bytes", "0"], "--max-bytes is 0"),
        (["photos", "--threads", "0"], "threads is 0"),
        (["photos", "--batch-size", "-1"], "batch_size is -1"),
        (["photos", "--runtime", "torch"], "'torch'"),
        (["photos", "--resume"], "--out"),
        (["photos", "--out", "rows.csv", "--resume", "--fresh"], "one of the two"),
        (["photos", "--gallery", "page.pdf"], ".html"),
    ],
)
def test_a_mistake_gets_one_line(
    predict: Command, photos: Path, arguments: list[str], words: str
) -> None:
    Path("photos.csv").mkdir()
    ran = predict(*arguments)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert words in ran.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "photos.csv"]


def test_parquet_needs_its_extra(
    predict: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predict.sinks.find_spec", lambda name: None)
    ran = predict(str(photos), "--out", "rows.parquet")
    assert "[parquet]" in ran.stderr
    assert ran.returncode == 1


def test_copies_in_folders_of_classes(predict: Command, photos: Path, put: Put) -> None:
    put("photos/sub/a.png", "red")
    put("other/a.png", "#fe0000")
    put("sorted/red/d.png", b"there before")
    put("photos/f/d.png", "red")
    arguments = ("photos", "other", "photos/f/d.png", "--copy-to", "sorted", "--out", "rows.csv")
    assert predict(*arguments).returncode == 0
    copies = {str(path): path.read_bytes() for path in Path("sorted").rglob("*") if path.is_file()}
    assert copies == {
        "sorted/red/a.png": Path("photos/a.png").read_bytes(),
        "sorted/red/a-2.png": Path("other/a.png").read_bytes(),
        "sorted/red/sub/a.png": Path("photos/sub/a.png").read_bytes(),
        "sorted/red/f/d.png": Path("photos/f/d.png").read_bytes(),
        "sorted/red/d.png": b"there before",
        "sorted/red/d-2.png": Path("photos/f/d.png").read_bytes(),
        "sorted/green/b,\u20ac.png": Path("photos/b,\u20ac.png").read_bytes(),
        "sorted/blue/d.png": Path("photos/d.png").read_bytes(),
    }
    assert predict(*arguments).returncode == 0  # once more changes nothing
    assert {str(p) for p in Path("sorted").rglob("*") if p.is_file()} == set(copies)


def test_copies_stay_in_their_folder(predict: Command, put: Put, here: Path) -> None:
    import zipfile

    red = put("a.png").read_bytes()
    with zipfile.ZipFile("evil.zip", "w") as archive:
        for member in ("../../up.png", "/root.png", "x/../../y.png", "n" * 250 + ".png"):
            archive.writestr(member, red)
    assert predict("evil.zip", "--copy-to", "deep/sorted").returncode == 0
    copies = [str(path.relative_to(here)) for path in here.rglob("*.png")]
    assert len(copies) == 4  # and one whose name lost its ending
    assert {"a.png", "deep/sorted/red/up.png", "deep/sorted/red/root.png"} < set(copies)
    assert len(list((here / "deep/sorted/red").rglob("*"))) == 5  # x is a folder


def test_a_gallery(
    predict: Command, photos: Path, put: Put, browser: Any, artifact_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    put(f"photos/{name}", "red")
    put(f"photos/{name}.txt.png", b"no <b>image</b>")
    ran = predict(str(photos), "--gallery", "pages/some.html", "--out", "rows.csv")
    assert ran.returncode == 0, ran.stderr
    page = Path("pages/some.html")
    text = page.read_text()
    assert name not in text
    assert "http" not in text.replace("http-equiv", "")
    opened = browser.open(page.resolve())
    assert opened.evaluate("document.querySelectorAll('.pictures img').length") == 4
    assert opened.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert name in opened.evaluate("document.body.innerText")


def test_a_gallery_shows_the_same_images_of_the_same_paths(
    artifact_path: Path, png: Callable[[str], bytes]
) -> None:
    with Classifier.open(artifact_path) as classifier:
        red = classifier(png("red"))
    from predict.pipeline import Row

    rows = [Row(path=f"{number}.png", prediction=red) for number in range(50)]
    kept = []
    for order in (rows, rows[::-1], rows[25:] + rows[:25]):
        gallery = Gallery(classifier.limits, size=5)
        loads = 0
        for row in order:

            def load() -> bytes:
                nonlocal loads
                loads += 1
                return png("red")

            gallery.offer(row, load)
        kept.append(sorted(each.path for each in gallery._kept))
        assert loads < 30  # not each image is decoded again
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 5


def start(artifact: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Returns a process that classifies so slowly that it can be stopped halfway."""
    code = (
        "import signal, time; from core import cli; from predict import __main__, pipeline\n"
        # A shell that runs the tests in the background has them ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "slow = pipeline._classify\n"
        "def work(*a): time.sleep(0.01); return slow(*a)\n"
        "pipeline._classify = work\n"
        "cli.run(__main__.main)\n"
    )
    words = [sys.executable, "-c", code, str(artifact), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(partial: Path) -> int:
    return partial.read_bytes().count(b"\n") if partial.exists() else 0


@pytest.mark.parametrize(
    ("ending", "stops"), [("csv", (40, 120, 200)), ("jsonl", (40,)), ("parquet", (120,))]
)
def test_a_killed_run_goes_on(
    artifact_path: Path,
    here: Path,
    put: Put,
    predict: Command,
    ending: str,
    stops: tuple[int, ...],
) -> None:
    for number in range(300):
        put(f"photos/{number:03}.png", ("red", "lime", "blue")[number % 3])
    put("photos/100.png", b"text")
    arguments = ["photos", "--out", f"rows.{ending}", "--batch-size", "1", "--threads", "2"]
    arguments += ["--copy-to", "sorted", "--gallery", "page.html"]
    partial = Path(f"rows.{ending}.partial")
    for stop in stops:
        again = [] if stop == stops[0] else ["--resume"]
        process = start(artifact_path, here, *arguments, *again)
        while lines_of(partial) < stop and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert stop <= lines_of(partial) < 300
        assert not Path(f"rows.{ending}").exists()
        with partial.open("ab") as file:  # as if it had been cut off within a row
            file.write(b'{"path": "photos/')
    ran = predict(*arguments, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert "300 images, 1 failed" in ran.stderr
    assert not partial.exists()
    whole = Path(f"rows.{ending}").read_bytes()
    copies = sorted(Path("sorted").rglob("*.png"))
    assert len(copies) == 299
    page = Path("page.html").read_text()
    assert predict(*arguments[:-2], "--gallery", "other.html").returncode == 0
    assert Path(f"rows.{ending}").read_bytes() == whole
    assert page.count("<img") == Path("other.html").read_text().count("<img") == 60


@pytest.fixture
def stopped(artifact_path: Path, here: Path, put: Put) -> Path:
    """Returns what an interrupted run of 200 images left; it ended with status 130 and one line."""
    for number in range(200):
        put(f"photos/{number:03}.png")
    arguments = ["photos", "--out", "rows.csv", "--batch-size", "1", "--threads", "2"]
    process = start(artifact_path, here, *arguments)
    partial = Path("rows.csv.partial")
    while lines_of(partial) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    rows = lines_of(partial) - 1
    assert (process.returncode, out) == (130, "")
    assert err.count("\n") == 1
    assert f"{rows} rows" in err
    assert "--resume" in err
    return partial


def test_a_run_goes_on_only_as_it_began(
    stopped: Path, predict: Command, put: Put, make_artifact: Callable[..., Path], command: Command
) -> None:
    left = stopped.read_bytes()
    out = ["--out", "rows.csv"]
    for arguments, words in (
        (["photos", *out], "--resume goes on"),
        (["photos", *out, "--resume", "--top-k", "2"], "top-k"),
        (["photos/", *out, "--resume"], "sources"),
        (["photos", *out, "--resume", "--max-bytes", "500"], "max-bytes"),
        (["photos", *out, "--resume", "--runtime", "openvino"], "runtime"),
        (["photos", *out, "--resume", "--copy-to", "x"], "copy-to"),
        (["photos", *out, "--resume", "--truncated", "accept"], "truncated"),
    ):
        ran = predict(*arguments)
        assert ran.returncode == 1
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1
        assert stopped.read_bytes() == left
    ran = command("predict", str(make_artifact(scale=0.1)), "photos", *out, "--resume")
    assert "another artifact" in ran.stderr
    Path("photos/003.png").rename("photos/a.png")
    ran = predict("photos", *out, "--resume")
    assert "image 4 was photos/003.png" in ran.stderr
    assert "--resume" not in ran.stderr  # it would not help
    assert stopped.read_bytes() == left
    assert not Path("rows.csv").exists()
    assert predict("photos", *out, "--fresh").returncode == 0
    assert len(table(Path("rows.csv"))) == 200
    assert not stopped.exists()
    ran = predict("photos", *out, "--resume")
    assert (ran.returncode, "rows.csv is whole" in ran.stderr) == (1, True)


def test_a_damaged_journal_is_refused(stopped: Path, predict: Command) -> None:
    lines = stopped.read_bytes().splitlines(keepends=True)
    stopped.write_bytes(b"".join([*lines[:5], b"broken\n", *lines[6:]]))
    ran = predict("photos", "--out", "rows.csv", "--resume")
    assert "line 6" in ran.stderr
    assert ran.stderr.count("\n") == 1
    stopped.write_bytes(b"no header\n")
    assert "--fresh" in predict("photos", "--out", "rows.csv", "--resume").stderr


@pytest.mark.parametrize("arguments", [[], ["--resume"], ["--fresh"]])
def test_a_run_that_was_killed_before_it_wrote_anything_starts(
    predict: Command, photos: Path, put: Put, arguments: list[str]
) -> None:
    put("rows.csv", b"of an earlier run\n")
    put("rows.csv.partial", b"")
    ran = predict(str(photos), "--out", "rows.csv", *arguments)
    assert ran.returncode == 0, ran.stderr
    assert len(table(Path("rows.csv"))) == 4
    assert not Path("rows.csv.partial").exists()


def test_two_runs_do_not_write_one_file(
    artifact_path: Path, here: Path, put: Put, predict: Command
) -> None:
    for number in range(300):
        put(f"photos/{number:03}.png")
    process = start(artifact_path, here, "photos", "--out", "rows.csv", "--batch-size", "1")
    while lines_of(Path("rows.csv.partial")) < 5 and process.poll() is None:
        time.sleep(0.005)
    others = [
        predict("photos", "--out", "rows.csv", *how) for how in ((), ("--resume",), ("--fresh",))
    ]
    process.kill()
    process.communicate()
    for ran in others:
        assert "another run" in ran.stderr
        assert ran.returncode == 1


def test_a_full_disk_keeps_what_was_done(
    predict: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(predict_command, "write_rows", full)
        ran = predict("photos", "--out", "rows.csv")
    assert ran.returncode == 1
    assert "No space left on device" in ran.stderr
    assert "keeps 4 rows" in ran.stderr
    assert not Path("rows.csv").exists()
    assert predict("photos", "--out", "rows.csv", "--resume").returncode == 0
    assert len(table(Path("rows.csv"))) == 4


def test_a_disk_that_fills_up_says_how_to_go_on(
    artifact_path: Path, here: Path, put: Put, predict: Command
) -> None:
    for number in range(200):
        put(f"photos/{number:03}.png")
    process = start(artifact_path, here, "photos", "--out", "rows.csv", "--batch-size", "1")
    partial = Path("rows.csv.partial")
    while lines_of(partial) < 5 and process.poll() is None:
        time.sleep(0.005)
    most = partial.stat().st_size + 1000  # bytes
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "File too large" in err
    assert f"keeps {lines_of(partial) - 1} rows" in err
    assert predict("photos", "--out", "rows.csv", "--resume").returncode == 0
    assert [row["path"] for row in table(Path("rows.csv"))] == [
        f"photos/{n:03}.png" for n in range(200)
    ]


def test_a_failure_of_the_network_ends_the_run(
    predict: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Classifier.open

    def broken(*arguments: Any, **options: Any) -> Classifier:
        classifier = opened(*arguments, **options)
        session = classifier._runtime._session  # type: ignore[attr-defined]

        class Failing:
            def run(self, *_: object) -> Any:
                return session.run(["nothing"], {})

        monkeypatch.setattr(classifier._runtime, "_session", Failing())
        return classifier

    monkeypatch.setattr(Classifier, "open", broken)
    ran = predict("photos", "--out", "rows.csv")
    assert ran.returncode == 1
    assert "ort-cpu" in ran.stderr
    assert "--resume" in ran.stderr
    assert ran.stderr.count("\n") == 1
