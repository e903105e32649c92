"""Settings from the environment: each field is ``POCKETNETS_<FIELD>``."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from artifact.runtimes.base import is_servable, list_runtimes
from core.cores import usable_cores
from core.errors import UserError, closest
from core.preprocess import MAX_PIXELS, Truncated

PREFIX = "POCKETNETS_"
CARRIED = Path(__file__).resolve().parent / "artifact"  # the artifact packed into a Bento
CARRIED_RUNTIME = CARRIED.with_name("runtime.txt")  # and the name of its runtime

DEFAULT_RUNTIME = "ort-cpu"
GRACE_S = 20  # for unfinished requests after SIGTERM
# A server has no torch, so runtimes that need it are excluded.
RUNTIMES = [name for name in list_runtimes() if is_servable(name)]

AccessLog = Literal["0", "1", "json"]

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_SWITCH = {"0": False, "1": True}
_NOT_OURS = (PREFIX + "DATA", PREFIX + "STATE")  # of training, and of our own processes


def _setting(
    text: str,
    default: Any = dataclasses.MISSING,
    *,
    range: tuple[int, int] | None = None,
    factory: Callable[[], int] | None = None,
    secret: bool = False,
) -> Any:
    """Returns a dataclass field with its description for ``--help`` and the docs."""
    metadata = {"text": text, "range": range}
    if factory:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of the service, described at each field."""

    artifact: Path = _setting(  # noqa: RUF009 - a field
        "folder of the artifact; beside the code if unset", CARRIED
    )
    models: tuple[str, ...] = _setting(
        "folders of more models, each with NAME= before it where its own name will not do", ()
    )
    repository: Path | None = _setting(  # noqa: RUF009 - a field
        "folder of models, all of which are loaded", None
    )
    canary: str = _setting("model that answers a share of the requests that name none: NAME=5%", "")
    shadow: str = _setting("model that is asked, too, and never answers: NAME or NAME=5%", "")
    watch: bool = _setting("1 follows what changes in the repository", False)
    max_models: int = _setting("models loaded at once", 16, range=(1, 1000))
    model_memory_mb: int = _setting(
        "memory of all models in a worker, in MiB", 4096, range=(1, 1_000_000)
    )
    runtime: str = _setting(f"what executes it: {', '.join(RUNTIMES)}", DEFAULT_RUNTIME)
    workers: int = _setting("processes; one fills all cores by its threads", 1, range=(1, 64))
    threads: int = _setting(
        "batches decoded and inferred at once in a worker; by default all cores together",
        range=(1, 1024),
        factory=usable_cores,
    )
    call_threads: int = _setting(
        "CPU threads inside one call: 1 has the highest throughput, more a faster lone call",
        1,
        range=(1, 1024),
    )
    batch_size: int = _setting(
        "most images in one call; 0 measures at start what pays", 0, range=(0, 1024)
    )
    batch_window_ms: int = _setting(
        "how long a call waits for more images: only on a GPU can that pay", 0, range=(0, 1000)
    )
    queue_size: int = _setting(
        "images that may wait; one more is answered 429", 64, range=(1, 100_000)
    )
    deadline_ms: int = _setting(
        "time for the upload (then 408), and for the answer (then 504)",
        10_000,
        range=(1, 600_000),
    )
    head_ms: int = _setting(
        "time for a request's head, the lines before its body (then 408)",
        10_000,
        range=(100, 600_000),
    )
    max_connections: int = _setting(
        "connections open at once in a worker; then idle ones are closed first",
        512,
        range=(8, 100_000),
    )
    max_bytes: int = _setting("largest image file", 20_000_000, range=(1, 2**31 - 1))
    max_pixels: int = _setting(
        "most pixels of an image, judged before decoding", 50_000_000, range=(1, MAX_PIXELS)
    )
    truncated: Truncated = _setting(  # noqa: RUF009 - a field
        "accept takes a JPEG that lacks its end marker, or at most its last 32 rows and a "
        "sixteenth of all; refuse does not",
        "refuse",
    )
    max_images: int = _setting("most images in a /predict_batch", 32, range=(1, 1024))
    top_k: int = _setting(
        "predictions in an answer if the request says nothing", 5, range=(1, 1_000_000)
    )
    abstain: bool = _setting(
        "1 answers label null, reason unsure, where the best score is below the artifact's "
        "threshold for that",
        False,
    )
    token: str | None = _setting(
        "if set, requests need the header Authorization: Bearer <token>", None, secret=True
    )
    tokens: Path | None = _setting(  # noqa: RUF009 - a field
        "file of named tokens, made by pocketnets token; read again when it changes", None
    )
    host: str = _setting(
        "IP address to listen on: 127.0.0.1 is this machine, 0.0.0.0 all", "127.0.0.1"
    )
    port: int = _setting("TCP port", 3000, range=(1, 65535))
    grpc_port: int = _setting(
        "TCP port of gRPC, for clients of the Open Inference Protocol; 0 for none",
        0,
        range=(0, 65535),
    )
    root_path: str = _setting(
        "prefix under which a proxy shows the service, like /classifier; it may strip it or not", ""
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "addresses or networks of proxies whose X-Forwarded-For and -Proto are believed; * for all",
        (),
    )
    cors_origins: tuple[str, ...] = _setting(
        "origins of pages that browsers let call the service, like https://app.example.com; "
        "* for all",
        (),
    )
    access_log: AccessLog = _setting(  # noqa: RUF009 - a field
        "1 logs a line for each request, json a line of JSON with its id and the token's name", "0"
    )
    tracing: bool = _setting(
        "1 sends OpenTelemetry traces of requests, to where OTEL_EXPORTER_OTLP_ENDPOINT says", False
    )
    log_predictions: Path | None = _setting(  # noqa: RUF009 - a field
        "folder of the prediction log: a row for each answer, never the image; off if unset", None
    )
    log_every: int = _setting(
        "logs one of so many answers, drawn by chance", 1, range=(1, 1_000_000)
    )
    log_file_mb: int = _setting("size in MB at which a new file begins", 64, range=(1, 10_000))
    log_mb: int = _setting(
        "size in MB of the whole log; of more, the oldest files are deleted",
        1024,
        range=(1, 10_000_000),
    )
    log_images: bool = _setting(
        "1 keeps the image files of logged answers, in images/ of the log; nothing deletes them",
        False,
    )
    allow_unverified: bool = _setting(
        "1 serves an artifact that was never run where it was made", False
    )

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if allowed := each.metadata["range"]:
                low, high = allowed
                value = getattr(self, each.name)
                if not low <= value <= high:
                    raise _bad(each.name, value, _allowed(each))
        if self.watch and self.repository is None:
            raise UserError(
                f"watch is on, and there is no repository to watch (set {PREFIX}REPOSITORY)"
            )
        if self.root_path and not _ROOT_PATH.fullmatch(self.root_path):
            raise _bad(
                "root_path", self.root_path, "a path like /classifier, without a / at its end"
            )
        for proxy in self.trusted_proxies:
            if proxy != "*" and not _is_network(proxy):
                raise _bad(
                    "trusted_proxies", proxy, "an IP address, a network like 10.0.0.0/8, or *"
                )
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise _bad(
                    "cors_origins",
                    origin,
                    "an origin as browsers send it, https://app.example.com:8080 without a path, "
                    "or *",
                )
        if self.runtime not in RUNTIMES:
            raise UserError(
                f"runtime is {self.runtime!r}: {closest(self.runtime, RUNTIMES)} "
                f"(set {PREFIX}RUNTIME)"
            )
        for name, kind in (("truncated", Truncated), ("access_log", AccessLog)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise _bad(name, value, " or ".join(get_args(kind)))
        if self.log_file_mb > self.log_mb:
            raise UserError(
                f"log_file_mb is {self.log_file_mb} and log_mb {self.log_mb}: a file must fit into "
                f"the log (set {PREFIX}LOG_FILE_MB or {PREFIX}LOG_MB)"
            )
        if self.max_images > self.queue_size:
            raise UserError(
                f"max_images is {self.max_images} and queue_size {self.queue_size}: a batch that "
                f"never fits could be sent (set {PREFIX}MAX_IMAGES or {PREFIX}QUEUE_SIZE)"
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise UserError(
                f"token holds characters that no header can carry: take printable ASCII "
                f"(set {PREFIX}TOKEN)"
            )
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise _bad(
                "host", self.host, "an IP address: 127.0.0.1 (this machine) or 0.0.0.0 (all)"
            ) from None

    @property
    def needs_token(self) -> bool:
        """Returns whether requests need a token."""
        return self.token is not None or self.tokens is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Returns the settings in ``environment``; an unset or empty variable is the default.

        An artifact packed into a Bento uses the runtime that it was packed with.

        Raises:
            UserError: an invalid value; the message names the variable.
        """
        values: dict[str, Any] = {}
        for each in dataclasses.fields(cls):
            if text := environment.get(PREFIX + each.name.upper(), "").strip():
                values[each.name] = _parse(each, text)
        if "artifact" not in values and CARRIED.exists() and CARRIED_RUNTIME.exists():
            values.setdefault("runtime", CARRIED_RUNTIME.read_text().strip())
        inside = max(1, values.get("call_threads", 1) * values.get("workers", 1))
        values.setdefault("threads", max(1, usable_cores() // inside))
        return cls(**values)


def warn_of_unknown(environment: Mapping[str, str] = os.environ) -> None:
    """Prints a line on stderr for each variable that has the prefix but is not a setting."""
    known = [PREFIX + each.name.upper() for each in dataclasses.fields(Settings)]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in (*known, *_NOT_OURS):
            print(f"{name} is ignored: no such setting; {closest(name, known)}", file=sys.stderr)


def describe() -> list[tuple[str, str, str]]:
    """Returns variable, default and meaning of every setting."""
    rows = []
    for each in dataclasses.fields(Settings):
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            shown = "cores"
        elif default in (None, CARRIED, "", ()):
            shown = "-"
        else:
            shown = str(int(default)) if isinstance(default, bool) else str(default)
        text = each.metadata["text"]
        if allowed := each.metadata["range"]:
            text += f" ({allowed[0]}..{allowed[1]})"
        rows.append((PREFIX + each.name.upper(), shown, text))
    return rows


def _parse(each: dataclasses.Field[Any], text: str) -> Path | int | bool | str | tuple[str, ...]:
    if each.type == "tuple[str, ...]":
        return tuple(part.strip() for part in text.split(","))
    if each.type in ("Path", "Path | None"):
        return Path(text).expanduser().absolute()
    if each.type == "bool":
        if text not in _SWITCH:
            raise _bad(each.name, text, "0 or 1")
        return _SWITCH[text]
    if each.type == "int":
        try:
            return int(text)
        except ValueError:
            raise _bad(each.name, text, _allowed(each)) from None
    return text


def _allowed(each: dataclasses.Field[Any]) -> str:
    low, high = each.metadata["range"]
    return f"a whole number in {low}..{high}"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _bad(name: str, value: object, allowed: str) -> UserError:
    return UserError(f"{name} is {value!r}: it must be {allowed} (set {PREFIX}{name.upper()})")
