from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from predict.classifier import Classifier
from predict.pipeline import Row, classify
from predict.sources import Passed, find_items, find_sources

Put = Callable[..., Path]
Png = Callable[[str], bytes]
MOST = 10_000


def rows(artifact: Path, *names: str, passed: Passed | None = None) -> list[Row]:
    paths = find_items(find_sources(names, MOST), Passed() if passed is None else passed)
    with Classifier.open(artifact, threads=2, batch_size=2) as classifier:
        return [outcome.row for outcome in classify(classifier, paths)]


def labels(artifact: Path, *names: str, passed: Passed | None = None) -> dict[str, str | None]:
    return {
        row.path: row.prediction.label if row.prediction else row.error
        for row in rows(artifact, *names, passed=passed)
    }


def make_tar(name: str, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(name, mode) as archive:  # type: ignore[call-overload]
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_zip(name: str, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_images_of_an_archive(artifact_path: Path, here: Path, png: Png, ending: str) -> None:
    members = {
        "b/1.png": png("red"),
        "a/2.png": png("blue"),
        "__MACOSX/a/._2.png": b"litter",
        "labels.csv": b"text",
        "a/empty.png": b"",
        "a/large.png": b"0" * (MOST + 1),
        "../up.png": png("lime"),
        "text.png": b"text",
    }
    name = f"some.{ending}"
    if ending == "zip":
        make_zip(name, members)
    else:
        compression = {"tar": "", "tgz": ":gz"}.get(ending, f":{ending.partition('.')[2]}")
        make_tar(name, members, f"w{compression}")
    passed = Passed()
    answers = labels(artifact_path, name, passed=passed)
    shown = [f"{name}!{member}" for member in members if member not in ("labels.csv",)]
    shown.remove(f"{name}!__MACOSX/a/._2.png")
    assert list(answers) == shown
    assert answers[f"{name}!b/1.png"] == "red"
    assert answers[f"{name}!a/2.png"] == "blue"
    assert answers[f"{name}!../up.png"] == "green"
    assert "no bytes" in (answers[f"{name}!a/empty.png"] or "")
    assert "limit of 10000 bytes" in (answers[f"{name}!a/large.png"] or "")
    assert "not a" in (answers[f"{name}!text.png"] or "")
    assert passed == {"hidden or left by machines": 1, "not meant as an image": 1}
    assert sorted(path.name for path in here.iterdir()) == [name]  # nothing was unpacked


def test_a_member_is_inflated_no_further_than_allowed(
    artifact_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_zip("bomb.zip", {"a.png": bytes(50_000_000)})
    data = Path("bomb.zip").read_bytes()
    lie = (100).to_bytes(4, "little")
    assert data.count((50_000_000).to_bytes(4, "little")) == 2
    Path("lying.zip").write_bytes(data.replace((50_000_000).to_bytes(4, "little"), lie))
    inflated = 0
    read = zipfile.ZipExtFile.read

    def count(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        nonlocal inflated
        found = read(self, n)
        inflated += len(found)
        return found

    monkeypatch.setattr(zipfile.ZipExtFile, "read", count)
    answers = labels(artifact_path, "bomb.zip", "lying.zip")
    assert "limit of 10000 bytes" in (answers["bomb.zip!a.png"] or "")
    assert "cannot be read" in (answers["lying.zip!a.png"] or "")  # its check sum is another
    assert inflated <= MOST + 1


def test_what_is_broken_in_an_archive_is_a_row(artifact_path: Path, here: Path, png: Png) -> None:
    make_zip("cut.zip", {"a.png": png("red")})
    Path("cut.zip").write_bytes(Path("cut.zip").read_bytes()[:-30])
    Path("text.tar").write_bytes(b"text" * 1000)
    Path("text.zip").write_bytes(b"")
    make_tar("cut.tar.gz", {"a.png": png("red"), "b.png": bytes(range(256)) * 30}, "w:gz")
    Path("cut.tar.gz").write_bytes(Path("cut.tar.gz").read_bytes()[:-60])
    make_zip("flipped.zip", {"a.png": png("red"), "b.png": png("blue")})
    data = bytearray(Path("flipped.zip").read_bytes())
    data[45] ^= 255
    Path("flipped.zip").write_bytes(data)
    found = rows(artifact_path, "cut.zip", "text.tar", "text.zip", "cut.tar.gz", "flipped.zip")
    answers = {row.path: row.prediction and row.prediction.label for row in found}
    assert answers["cut.tar.gz!a.png"] == "red"
    assert answers["flipped.zip!b.png"] == "blue"
    bad = ("cut.zip", "text.tar", "text.zip", "cut.tar.gz", "flipped.zip!a.png")
    for path in bad:
        assert answers[path] is None
    assert all("\n" not in (row.error or "") for row in found)


def test_a_locked_member_is_a_row(artifact_path: Path, here: Path, png: Png) -> None:
    make_zip("locked.zip", {"a.png": png("red")})
    data = bytearray(Path("locked.zip").read_bytes())
    data[6] |= 1  # of its own header, and of the list's
    data[data.rindex(b"PK\1\2") + 8] |= 1
    Path("locked.zip").write_bytes(data)
    (row,) = rows(artifact_path, "locked.zip")
    assert "encrypted" in (row.error or "")


def test_links_of_a_tar_archive_are_not_followed(artifact_path: Path, here: Path) -> None:
    with tarfile.open("links.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = rows(artifact_path, "links.tar")
    assert len(found) == 3
    assert all("not followed" in (row.error or "") for row in found)


def test_a_header_may_not_be_large(artifact_path: Path, here: Path, png: Png) -> None:
    with tarfile.open("names.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(png("red"))
        archive.addfile(info, io.BytesIO(png("red")))
        archive.addfile(tarfile.TarInfo("b" * (2 << 20)))
    first, rest = rows(artifact_path, "names.tar.gz")
    assert first.prediction is not None
    assert "a header of" in (rest.error or "")


def test_a_tar_archive_of_many_keeps_none_of_them(here: Path) -> None:
    make_tar("many.tar", {f"{number}.png": b"x" for number in range(2000)})
    (source,) = find_sources(["many.tar"], MOST)
    assert source.countable is False
    members = source.items(Passed())
    for number in range(2000):
        item = next(members)
        assert item.path == f"many.tar!{number}.png"
        if number % 3:  # those that are done are passed over unread
            assert item.load() == b"x"
    (archive,) = [
        value for value in members.gi_frame.f_locals.values() if isinstance(value, tarfile.TarFile)
    ]
    assert len(archive.members) <= 1  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(members)
    with pytest.raises(UserError):
        item.load()
