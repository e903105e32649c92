"""Samples how busy the GPU is, as nvidia-smi shows it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import mean
from typing import IO

_EVERY = 200  # milliseconds
_QUERY = "--query-gpu=utilization.gpu"


@dataclass(slots=True)
class Utilisation:
    """Samples of how busy the first GPU was, in percent of the time a kernel was running."""

    samples: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """Returns the mean of the samples; None where there are none."""
        return mean(self.samples) if self.samples else None


@contextmanager
def watched(program: str = "nvidia-smi") -> Iterator[Utilisation]:
    """Yields what will hold the samples after the block; it stays empty without nvidia-smi."""
    found = Utilisation()
    path = shutil.which(program)
    if path is None:
        yield found
        return
    command = [path, "--id=0", _QUERY, "--format=csv,noheader,nounits", f"--loop-ms={_EVERY}"]
    with tempfile.TemporaryFile() as file:  # not a pipe, which nobody would empty
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        try:
            yield found
        finally:
            process.kill()
            process.wait()
            found.samples = _samples(file)


def _samples(file: IO[bytes]) -> list[float]:
    file.seek(0)
    samples = []
    for line in file.read().decode(errors="replace").splitlines():
        with suppress(ValueError):  # "[N/A]", or half a line
            samples.append(float(line))
    return samples
