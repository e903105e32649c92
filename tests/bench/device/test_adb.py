"""The phone is found, or one line says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_phone import SERIAL, FakePhone

from bench.device.adb import Adb, PhoneFailed, PhoneLost, find_phone
from core.errors import UserError


def test_the_only_phone_is_taken(fake_phone: FakePhone) -> None:
    assert find_phone() == find_phone(SERIAL) == Adb(SERIAL)


def test_one_of_several_is_named_by_flag_or_as_adb_takes_it(
    fake_phone: FakePhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fake_phone.listed("unauthorized", "OTHER")
    fake_phone.connect(other, fake_phone.listed())
    with pytest.raises(UserError, match=rf"OTHER \(unauthorized\), {SERIAL} \(Pixel 6\).*--adb"):
        find_phone()
    assert find_phone(SERIAL) == Adb(SERIAL)
    monkeypatch.setenv("ANDROID_SERIAL", SERIAL)
    assert find_phone() == Adb(SERIAL)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("unauthorized", "unlock it"),
        ("offline", "plug it in again"),
        ("no permissions (user in plugdev group; are your udev rules wrong?); see [x]", "udev"),
        ("recovery", "recovery"),
    ],
)
def test_a_phone_that_cannot_be_used_is_told(fake_phone: FakePhone, state: str, word: str) -> None:
    fake_phone.connect(fake_phone.listed(state))
    with pytest.raises(UserError, match=f"{SERIAL}.*{word}"):
        find_phone()


def test_no_phone_no_such_phone_and_no_adb(
    fake_phone: FakePhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"'1A2B'.*{SERIAL}"):
        find_phone("1A2B")
    fake_phone.connect()
    with pytest.raises(UserError, match="USB debugging"):
        find_phone()
    monkeypatch.setenv("PATH", str(fake_phone.root / "nothing"))
    with pytest.raises(UserError, match="adb is not on PATH"):
        find_phone()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 60", "did not end within 0.3 s"),
        ("echo 'cannot bind'; exit 1", "failed with exit status 1 and said: cannot bind"),
        ("true", "printed no list of phones and said nothing"),
        (r"printf '\033[2J\377\001\n\a\n'", r"no list of phones and said: \[2J\ufffd;"),
        (r"printf 'List of devices attached\n\a\n1A\033[2J offline\n'", r"phone 1A cannot be used"),
    ],
)
def test_an_adb_that_hangs_or_prints_rubbish_is_one_line(
    fake_phone: FakePhone, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr("bench.device.adb._PATIENCE", 0.3)
    (fake_phone.root / "host/adb").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(UserError, match=words) as error:
        find_phone()
    assert str(error.value).isprintable()


def test_a_command_gives_its_output_or_its_failure(fake_phone: FakePhone) -> None:
    adb = Adb(SERIAL)
    assert sorted(adb.shell("echo one; echo 'two three' >&2").splitlines()) == ["one", "two three"]
    with pytest.raises(PhoneFailed, match=r"status 3.*no such model"):
        adb.shell("echo 'error: no such model'; echo more; exit 3")
    with pytest.raises(PhoneFailed, match=r"said: \[2Jerror$"):
        adb.shell(r"printf '\033[2Jerror\007\nmore\n'; exit 3")
    with pytest.raises(PhoneFailed, match=r"status 3 and said nothing$"):
        adb.shell("exit 3")
    with pytest.raises(PhoneFailed, match=r"within 0 s"):
        adb.shell("sleep 2", patience=0.3)


def test_a_full_phone_is_told_with_what_does_not_fit(fake_phone: FakePhone, tmp_path: Path) -> None:
    (file := tmp_path / "model.tflite").write_bytes(bytes(2_500_000))
    adb = Adb(SERIAL)
    adb.push(file, "/data/local/tmp/model.tflite")
    fake_phone.save(room=2_000_000)
    with pytest.raises(PhoneFailed, match=r"full.*model\.tflite \(2\.5 MB\)"):
        adb.push(file, "/data/local/tmp/again.tflite")


def test_a_phone_that_goes_away_is_lost(fake_phone: FakePhone, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"x")
    adb = Adb(SERIAL)
    fake_phone.save(pulled_after=1)
    assert adb.shell("echo here") == "here\n"
    for use in (lambda: adb.shell("true"), lambda: adb.push(file, "/data/local/tmp/file")):
        with pytest.raises(PhoneLost, match=SERIAL):
            use()
