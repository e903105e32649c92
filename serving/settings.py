"""What an operator may set, from the environment: each field is ``POCKETNETS_<FIELD>``."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.runtimes.base import list_runtimes
from models.cores import usable_cores
from models.errors import UserError, closest
from models.preprocess import MAX_PIXELS

PREFIX = "POCKETNETS_"
CARRIED = Path(__file__).resolve().parent / "artifact"  # how a Bento carries its artifact

# A server must start without torch, so its runtimes are all the others.
RUNTIMES = [name for name in list_runtimes() if not name.startswith("torch")]

_RANGES = {
    "threads": (1, 1024),
    "call_threads": (1, 1024),
    "max_bytes": (1, 2**31 - 1),
    "max_pixels": (1, MAX_PIXELS),
    "top_k": (1, 1_000_000),
    "port": (1, 65535),
}
_SWITCH = {"0": False, "1": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How the service runs.

    Attributes:
        artifact: folder of the artifact; beside this code if unset.
        runtime: what executes it, one of :data:`RUNTIMES`.
        threads: requests that are decoded and inferred at once; by default as many as cores, or
            as many as these hold of ``call_threads``.
        call_threads: CPU threads inside one call of the runtime. With one, as many calls as cores
            run at once, which gives the highest throughput; with more, a lone call is faster.
        max_bytes: largest image file taken.
        max_pixels: most pixels (width x height) taken, judged before decoding.
        top_k: predictions in an answer where the request asks for no number.
        host: IP address to listen on; 127.0.0.1 is this machine only.
        port: TCP port to listen on.
        allow_unverified: serve an artifact that was never run where it was made.
    """

    artifact: Path = CARRIED
    runtime: str = "ort-cpu"
    threads: int = field(default_factory=usable_cores)
    call_threads: int = 1
    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    top_k: int = 5
    host: str = "127.0.0.1"
    port: int = 3000
    allow_unverified: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise _bad(name, value, f"a whole number in {low}..{high}")
        if self.runtime not in RUNTIMES:
            raise UserError(
                f"runtime is {self.runtime!r}: {closest(self.runtime, RUNTIMES)} "
                f"(set {PREFIX}RUNTIME)"
            )
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise _bad(
                "host", self.host, "an IP address: 127.0.0.1 (this machine) or 0.0.0.0 (all)"
            ) from None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Returns the settings in ``environment``; an unset or empty variable is the default.

        Raises:
            UserError: a value that is not allowed; the message names the variable.
        """
        values: dict[str, Any] = {}
        for name in (each.name for each in dataclasses.fields(cls)):
            if text := environment.get(PREFIX + name.upper(), "").strip():
                values[name] = _parse(name, text)
        values.setdefault(
            "threads", max(1, usable_cores() // max(1, values.get("call_threads", 1)))
        )
        return cls(**values)


def _parse(name: str, text: str) -> Path | int | bool | str:
    if name == "artifact":
        return Path(text).expanduser().absolute()
    if name == "allow_unverified":
        if text not in _SWITCH:
            raise _bad(name, text, "0 or 1")
        return _SWITCH[text]
    if name in _RANGES:
        low, high = _RANGES[name]
        try:
            return int(text)
        except ValueError:
            raise _bad(name, text, f"a whole number in {low}..{high}") from None
    return text


def _bad(name: str, value: object, allowed: str) -> UserError:
    return UserError(f"{name} is {value!r}: it must be {allowed} (set {PREFIX}{name.upper()})")
