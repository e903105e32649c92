"""Thousands of spoiled artifact folders: each is refused, or is still the same artifact.

Run as a script it is the process that loads graphs which may crash a runtime.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from artifact import artifact as artifact_module
from artifact.artifact import Artifact, digest_of
from artifact.golden import check_golden, relative_error
from artifact.records import Logits
from artifact.runtimes.base import RuntimeUnavailable, load_runtime, run_batches
from artifact.validation import ArtifactError, read_fields
from core.errors import UserError
from core.files import sha256
from core.preprocess import Pixels

Spoil = Callable[[Path, Path, Random], object]  # (folder, another artifact's folder, dice)

ROOT = Path(__file__).resolve().parents[2]
CASES = 100  # of each kind
SECONDS = 10  # to refuse or to load one; it takes milliseconds
FILES = ("golden_logits.npy", "golden_pixels.npy", "manifest.json", "model.onnx")
HUGE = (-1, 0, 2**31, 2**63, 10**30, 10**400, 1e308, -0.5, 1e-300, float("nan"), float("inf"))
ODD: tuple[Any, ...] = (*HUGE, None, True, "", "x" * 70_000, "\n", "../x", [], [[]], {}, {"a": {}})


# What is done to the bytes of a file.


def flip_bits(data: bytes, dice: Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        spoiled[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(spoiled)


def cut(data: bytes, dice: Random) -> bytes:
    return data[: dice.choice([0, 1, len(data) - 1, dice.randrange(len(data))])]


def append(data: bytes, dice: Random) -> bytes:
    return data + dice.randbytes(dice.randint(1, 64))


def overwrite(data: bytes, dice: Random) -> bytes:
    start, length = dice.randrange(len(data)), dice.randint(1, 32)
    filling = dice.choice([b"\0", b"\x7f", b"\xff", dice.randbytes(1)]) * length
    return data[:start] + filling + data[start + length :]


def move(data: bytes, dice: Random) -> bytes:
    start, end, to = (dice.randrange(len(data)) for _ in range(3))
    return data[:to] + data[min(start, end) : max(start, end)] + data[to:]


BYTES = {f.__name__: f for f in (flip_bits, cut, append, overwrite, move)}


# What is done to a folder.


def in_a_file(change: Callable[[bytes, Random], bytes]) -> Spoil:
    def spoil(folder: Path, _: Path, dice: Random) -> None:
        file = folder / dice.choice(FILES)
        file.write_bytes(change(file.read_bytes(), dice))

    return spoil


def swap(folder: Path, _: Path, dice: Random) -> None:
    first, second = (folder / name for name in dice.sample(FILES, 2))
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def take_from_another(folder: Path, another: Path, dice: Random) -> None:
    for name in dice.sample(FILES, dice.randint(1, 2)):
        shutil.copyfile(another / name, folder / name)


def delete(folder: Path, _: Path, dice: Random) -> None:
    (folder / dice.choice(FILES)).unlink()


def make_odd(folder: Path, another: Path, dice: Random) -> None:
    """Puts something in the place of a file that is none, or lies elsewhere."""
    file = folder / dice.choice(FILES)
    file.unlink()
    targets = ["/dev/zero", "/dev/null", "/proc/self/mem", another / file.name, file, folder]
    kind = dice.choice(["folder", "pipe", *targets])
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(kind)


def in_the_manifest(change: Callable[[str, Random], str]) -> Spoil:
    def spoil(folder: Path, _: Path, dice: Random) -> None:
        file = folder / "manifest.json"
        file.write_text(change(file.read_text(), dice))

    return spoil


def odd_value(text: str, dice: Random) -> str:
    fields = json.loads(text)
    *path, last = dice.choice(list(places(fields)))
    at(fields, path)[last] = dice.choice(ODD)
    return json.dumps(fields)


def other_key(text: str, dice: Random) -> str:
    fields = json.loads(text)
    *path, last = dice.choice([place for place in places(fields) if isinstance(place[-1], str)])
    at(fields, path)[dice.choice([last.upper(), f"{last} ", "path", "labels"])] = at(
        fields, path
    ).pop(last)
    return json.dumps(fields)


def double_key(text: str, dice: Random) -> str:
    key = dice.choice(list(json.loads(text)))
    return f'{{"{key}": {json.dumps(dice.choice(ODD))}, {text[1:]}'


def other_words(text: str, dice: Random) -> str:
    """Returns the same JSON, written differently."""
    fields = list(json.loads(text).items())
    dice.shuffle(fields)
    return " \n" + json.dumps(dict(fields), indent=dice.choice([None, 0, 7]))


def add_files(folder: Path, another: Path, dice: Random) -> None:
    """Adds what an artifact does not have."""
    (folder / dice.choice(["README.md", ".DS_Store", "model.engine"])).write_bytes(b"new")
    shutil.copytree(another, folder / "old")


HARMLESS: dict[str, Spoil] = {
    "other_words": in_the_manifest(other_words),
    "add_files": add_files,
}
KINDS: dict[str, Spoil] = {
    **{name: in_a_file(change) for name, change in BYTES.items()},
    **{f.__name__: f for f in (swap, take_from_another, delete, make_odd)},
    **{f.__name__: in_the_manifest(f) for f in (odd_value, other_key, double_key)},
    **HARMLESS,
}


def places(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yields where each value stands inside ``value``."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], *path, key)


def at(value: Any, path: list[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def resign(folder: Path, name: str) -> None:
    """Makes the digests right after the file ``name`` changed, as one could who means harm."""
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["sha256s"][name] = sha256(folder / name)
    manifest.write_text(json.dumps(signed(fields)))


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a manifest with the right digest of themselves."""
    others = {key: value for key, value in fields.items() if key != "digest"}
    return {**others, "digest": digest_of(others)}


# What must come of it.


class Hang(BaseException):
    """A case over its time; none of the errors that a loader turns into its own."""


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"still busy after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def golden_of(original: Path) -> tuple[Pixels, Logits]:
    """Returns the golden batch of the artifact in ``original``, read once for all cases."""
    return Artifact.load(original).golden()


def outcome(folder: Path, original: Artifact, *, resigned: bool = False) -> str:
    """Returns the name of the error that refuses ``folder``, or ``same``.

    Raises:
        AssertionError: it is served, but is not ``original``. With ``resigned`` digests it may say
            something else of itself, but must give the golden answers.
    """
    pixels, golden = golden_of(original.path)
    try:
        spoiled = Artifact.load(folder)
        with load_runtime("ort-cpu", spoiled, threads=1) as runtime:
            check_golden(runtime, spoiled)
            logits = run_batches(runtime, pixels, spoiled.batch_range[1])
    except UserError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"not one line: {error}") from error
        return type(error).__name__
    if resigned:
        assert relative_error(logits, golden) <= original.limits.golden_error
    else:
        assert dataclasses.replace(spoiled, path=original.path) == original
        for now, before in zip(spoiled.golden(), (pixels, golden), strict=True):
            np.testing.assert_array_equal(now, before)
        assert relative_error(logits, golden) <= original.limits.golden_error
    return "same"


def fuzz(kind: str, original: Artifact, another: Path, work: Path, cases: int) -> Counter[str]:
    """Returns how often each outcome came of ``cases`` cases of ``kind``."""
    outcomes: Counter[str] = Counter()
    for case in range(cases):
        folder = work / "case"
        shutil.copytree(original.path, folder)
        KINDS[kind](folder, another, Random(f"{kind} {case}"))
        try:
            with time_limit():
                outcomes[outcome(folder, original)] += 1
        except (Exception, Hang) as error:
            raise AssertionError(f"case {case} of {kind}: {error!r}") from error
        shutil.rmtree(folder)
    return outcomes


@pytest.fixture
def another(make_artifact: Callable[..., Path]) -> Path:
    """Returns an artifact of the same shape with another network."""
    return make_artifact(scale=0.06, labels=("cyan", "magenta", "yellow"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_folder_is_refused_or_the_same(
    artifact_path: Path, another: Path, tmp_path: Path, kind: str
) -> None:
    outcomes = fuzz(kind, Artifact.load(artifact_path), another, tmp_path, CASES)
    if kind in HARMLESS:
        assert outcomes == {"same": CASES}
    else:
        assert outcomes["ArtifactError"] > 0.8 * CASES


def trust_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_module, "check_files", lambda *_: None)


def trust_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder: Path, name: str) -> dict[str, Any]:
        return signed(read_fields(folder, name))

    monkeypatch.setattr(artifact_module, "read_fields", read)


@pytest.mark.parametrize(
    ("trust", "kind"),
    [
        (trust_files, "flip_bits"),
        (trust_files, "take_from_another"),
        (trust_manifest, "odd_value"),
    ],
)
def test_the_fuzz_finds_a_loader_that_does_not_check_digests(
    artifact_path: Path,
    another: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trust: Callable[[pytest.MonkeyPatch], None],
    kind: str,
) -> None:
    original = Artifact.load(artifact_path)
    trust(monkeypatch)
    with pytest.raises(AssertionError, match=f"case .* of {kind}"):
        fuzz(kind, original, another, tmp_path, CASES)


def test_every_odd_value_with_a_right_digest_is_refused_or_harmless(
    artifact_path: Path, tmp_path: Path
) -> None:
    original = Artifact.load(artifact_path)
    text = (original.path / "manifest.json").read_text()
    folder = tmp_path / "case"
    shutil.copytree(original.path, folder)
    outcomes: Counter[str] = Counter()
    for *path, last in places({k: v for k, v in json.loads(text).items() if k != "digest"}):
        for value in ODD:
            fields = json.loads(text)
            at(fields, path)[last] = value
            (folder / "manifest.json").write_text(json.dumps(signed(fields)))
            try:
                with time_limit():
                    outcomes[outcome(folder, original, resigned=True)] += 1
            except (Exception, Hang) as error:
                raise AssertionError(f"{[*path, last]} = {value!r:.50}: {error!r}") from error
    assert outcomes.total() > 1000
    assert outcomes["ArtifactError"] > 0.8 * outcomes.total()


@pytest.mark.parametrize("name", ["golden_logits.npy", "golden_pixels.npy"])
def test_a_spoiled_golden_batch_with_right_digests_is_refused_or_harmless(
    artifact_path: Path, tmp_path: Path, name: str
) -> None:
    original = Artifact.load(artifact_path)
    data = (original.path / name).read_bytes()
    folder = tmp_path / "case"
    shutil.copytree(original.path, folder)
    for case in range(CASES):
        dice = Random(f"{name} {case}")
        start = dice.choice([128, len(data)])  # every other case in the header
        change = BYTES[dice.choice(list(BYTES))]
        (folder / name).write_bytes(change(data[:start], dice) + data[start:])
        resign(folder, name)
        try:
            with time_limit():
                outcome(folder, original, resigned=True)
        except (Exception, Hang) as error:
            raise AssertionError(f"case {case}: {error!r}") from error


# Graphs with right digests reach the parser and the kernels of a runtime.


def spoil_graph(data: bytes, case: int) -> bytes:
    """Returns ``data`` with bit ``case`` flipped, or spoiled at random if it has no such bit."""
    if case < 8 * len(data):
        spoiled = bytearray(data)
        spoiled[case // 8] ^= 1 << case % 8
        return bytes(spoiled)
    return BYTES[list(BYTES)[case % len(BYTES)]](data, Random(f"graph {case}"))


def spoil_graphs(original: Artifact, work: Path, cases: range) -> Iterator[tuple[int, str]]:
    """Yields the number and the outcome of each of ``cases``; any of them may end the process."""
    data = original.graph_file.read_bytes()
    folder = work / "case"
    shutil.copytree(original.path, folder)
    for case in cases:
        (folder / "model.onnx").write_bytes(spoil_graph(data, case))
        resign(folder, "model.onnx")
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        yield case, outcome(folder, original, resigned=True)
        faulthandler.cancel_dump_traceback_later()


def survived(path: Path, work: Path, cases: range) -> Counter[str]:
    """Returns the outcomes of :func:`spoil_graphs` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, path, work, *map(str, (cases.start, cases.stop, cases.step))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-3000:]}"
    outcomes = Counter(word for _, word in lines)
    assert outcomes.total() == len(cases)
    return outcomes


def test_a_spoiled_graph_with_right_digests_is_refused_or_harmless(
    artifact_path: Path, tmp_path: Path
) -> None:
    bits = 8 * (artifact_path / "model.onnx").stat().st_size
    outcomes = survived(artifact_path, tmp_path, range(bits + CASES))
    assert {"RuntimeUnavailable", "GoldenError", "same"} <= set(outcomes)


@pytest.mark.parametrize("name", ["ort-cpu", "openvino"])
def test_a_runtime_refuses_a_broken_graph_in_one_line(
    artifact_path: Path, tmp_path: Path, name: str
) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    folder = tmp_path / "case"
    shutil.copytree(artifact_path, folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    resign(folder, "model.onnx")
    with pytest.raises(RuntimeUnavailable, match=rf"^{name}: cannot run .*model\.onnx \(.+\)$"):
        load_runtime(name, Artifact.load(folder))


def test_a_spoiled_graph_of_a_real_network_is_refused_or_harmless(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    bits = 8 * artifacts["onnx-int8"].size
    survived(artifacts["onnx-int8"].path, tmp_path, range(0, bits, bits // 50))


@pytest.mark.parametrize("name", ["onnx-int8", "tensorrt_rtx-fp16"])
def test_a_real_artifact_is_loaded_whole_or_refused(
    artifacts: dict[str, Artifact], tmp_path: Path, name: str
) -> None:
    original = artifacts[name]
    folder = tmp_path / name
    shutil.copytree(original.path, folder)
    for case in range(CASES):
        dice = Random(f"{name} {case}")
        file = folder / dice.choice([*original.sha256s, "manifest.json"])
        before = file.read_bytes()
        file.write_bytes(BYTES[dice.choice(list(BYTES))](before, dice))
        with time_limit():
            try:
                spoiled = Artifact.load(folder)
            except ArtifactError:
                pass
            else:
                assert dataclasses.replace(spoiled, path=original.path) == original
                assert file.name == "manifest.json" or file.read_bytes() == before
        file.write_bytes(before)
    assert dataclasses.replace(Artifact.load(folder), path=original.path) == original


if __name__ == "__main__":
    first, second, *numbers = sys.argv[1:]
    cases = range(*map(int, numbers))
    for case, word in spoil_graphs(Artifact.load(Path(first)), Path(second), cases):
        print(case, word, flush=True)
