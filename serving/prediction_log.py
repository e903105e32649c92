"""Writes the prediction log, and keeps the gauges of drift; neither ever delays an answer."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO, cast

import numpy as np

from artifact.artifact import Artifact
from artifact.drift import CLASSES, class_psi, feature_psi
from artifact.prediction_log import PATTERN, LoggedAnswer, LoggedLabel, artifact_key, columns_of
from artifact.records import Profile
from core.errors import UserError
from core.image_statistics import image_statistics
from core.preprocess import Pixels, encode_png, image_of
from core.record_file import dump
from serving.answers import Found
from serving.bodies import decode_base64
from serving.metrics import DRIFT, LOGGED
from serving.settings import Settings

QUEUED, HELD = 256, 64 << 20  # answers that wait, and their bytes; of more the row is lost
WINDOW, LEAST, EVERY = 1000, 300, 50  # answers in the gauges; from how many on; how often
MEGABYTE = 1_000_000
_SILENCE = 60.0  # seconds between two warnings

_log = logging.getLogger("pocketnets.log")


@dataclass(frozen=True, slots=True)
class _Waiting:
    when: float
    data: bytes | str | Pixels
    pixels: Pixels
    found: Found
    shadow: bool

    @property
    def size(self) -> int:
        """Returns its bytes in memory."""
        data = self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)
        return data + self.pixels.nbytes


class PredictionLog:
    """Writes a share of the answers of an artifact to files, in a thread of its own.

    Answers are handed over by a bounded queue. If it is full, or the disk is, rows are lost: they
    are counted in ``/metrics``, and a warning says so once a minute. The service goes on.

    Args:
        settings: folder, share, size of a file and of the log.
        artifact: what answers.
        key: its name and version in the metrics.
    """

    def __init__(self, settings: Settings, artifact: Artifact, key: tuple[str, str]) -> None:
        assert settings.log_predictions is not None
        self._settings, self._artifact = settings, artifact
        self._folder = settings.log_predictions
        self._name, self._version = key
        self._key = artifact_key(artifact)
        self._share = 1 / settings.log_every
        self._waiting: deque[_Waiting] = deque()
        self._held = 0  # bytes of them
        self._closed = False
        self._changed = threading.Condition()
        self._file: BinaryIO | None = None
        self._gauges = _Gauges(key, artifact.profile) if artifact.profile else None
        self._warned = -_SILENCE
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot be written ({error.strerror}); "
                "set POCKETNETS_LOG_PREDICTIONS to a folder of this service"
            ) from None
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(
        self, data: bytes | str | Pixels, pixels: Pixels, found: Found, *, shadow: bool = False
    ) -> None:
        """Logs an answer, or not, by chance; returns at once.

        Args:
            data: the image file, its base64, or pixels that came as such: kept as PNG.
            pixels: uint8 (height, width, channels), what the network got.
            found: the answer.
            shadow: whether nobody got it.
        """
        if self._share < 1 and random.random() >= self._share:
            return
        waiting = _Waiting(time.time(), data, pixels, found, shadow)
        with self._changed:
            if len(self._waiting) < QUEUED and self._held + waiting.size <= HELD:
                self._waiting.append(waiting)
                self._held += waiting.size
                self._changed.notify()
                return
        LOGGED.labels("lost").inc()

    def close(self) -> None:
        """Writes all that waits, and closes the file."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._file is not None:
            self._file.close()

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            try:
                self._write(waiting)
            except Exception:  # a full disk, mostly; the service goes on
                LOGGED.labels("lost").inc()
                self._warn()
            else:
                LOGGED.labels("written").inc()

    def _next(self) -> _Waiting | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            waiting = self._waiting.popleft()
            self._held -= waiting.size
            return waiting

    def _write(self, waiting: _Waiting) -> None:
        statistics = {
            name: round(float(values[0]), 5)
            for name, values in image_statistics(waiting.pixels[None]).items()
        }
        data = waiting.data
        if isinstance(data, str):
            data = decode_base64(data, self._settings.max_bytes)
        elif not isinstance(data, bytes):
            data = encode_png(image_of(data))
        row = LoggedAnswer(
            time=datetime.fromtimestamp(waiting.when, UTC),
            name=self._name,
            version=self._version,
            artifact=self._key,
            model=self._artifact.model,
            precision=self._artifact.precision,
            runtime=self._settings.runtime,
            predictions=tuple(
                LoggedLabel(label=each["label"], index=each["index"], score=each["score"])
                for each in waiting.found["predictions"]
            ),
            labels=_chosen(waiting.found),
            timings_ms=cast(dict[str, float], waiting.found["timings_ms"]),
            bytes=len(data),
            statistics=statistics,
            shadow=waiting.shadow,
            image=self._keep(data) if self._settings.log_images else None,
        )
        self._append(dump(row) + b"\n")
        if self._gauges:
            self._gauges.add(row)

    def _append(self, line: bytes) -> None:
        """Writes a line, or nothing of it; unbuffered, so that a killed process loses no row."""
        file = self._open_file()
        size = os.fstat(file.fileno()).st_size
        if file.write(line) < len(line):
            os.ftruncate(file.fileno(), size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _keep(self, data: bytes) -> str:
        """Writes an image file, once, under the beginning of its digest; returns its name."""
        name = sha256(data).hexdigest()[:32]
        path = self._folder / "images" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            # Logs of other models and workers may write the same image now.
            with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
                whole = Path(folder, name)
                whole.write_bytes(data)
                os.replace(whole, path)
        return name

    def _open_file(self) -> BinaryIO:
        """Returns the file for the next row: a new one if that is full, or was deleted."""
        if self._file is not None:
            status = os.fstat(self._file.fileno())
            if status.st_nlink and status.st_size < self._settings.log_file_mb * MEGABYTE:
                return self._file
            self._file.close()
            self._file = None
        self._make_room()
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = self._folder / PATTERN.replace("*", f"{now}-{os.getpid()}-{self._key}")
        self._file = path.open("ab", buffering=0)
        return self._file

    def _make_room(self) -> None:
        """Deletes the oldest files of the log, of all processes, until a full one has room."""
        room = (self._settings.log_mb - self._settings.log_file_mb) * MEGABYTE
        for file in sorted(self._folder.glob(PATTERN), reverse=True):
            with suppress(FileNotFoundError):  # another process was faster
                room -= file.stat().st_size
                if room < 0:
                    file.unlink()

    def _warn(self) -> None:
        if time.monotonic() - self._warned >= _SILENCE:
            self._warned = time.monotonic()
            _log.exception("%s: rows of the prediction log are lost", self._folder)


def _chosen(found: Found) -> tuple[str, ...] | None:
    """Returns the labels of an answer; None if it is always the likeliest one."""
    if "labels" in found:
        return tuple(found["labels"])
    if "label" in found:
        return () if found["label"] is None else (found["label"],)
    return None


class _Gauges:
    """The population stability index of the last answers against the artifact's profile."""

    def __init__(self, key: tuple[str, str], profile: Profile) -> None:
        self._key, self._profile = key, profile
        self._rows: deque[LoggedAnswer] = deque(maxlen=WINDOW)
        self._count = 0

    def add(self, row: LoggedAnswer) -> None:
        self._rows.append(row)
        self._count += 1
        if len(self._rows) < LEAST or self._count % EVERY:
            return
        features, classes = columns_of(self._rows)
        for feature, values in features.items():
            index = feature_psi(self._profile, feature, values)
            DRIFT.labels(*self._key, feature).set(index)
        DRIFT.labels(*self._key, CLASSES).set(class_psi(self._profile, classes))
