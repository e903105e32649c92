"""The tokens that may use the service: a single one, or a file of named ones, which is followed."""

from __future__ import annotations

import hmac
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from artifact.records import Digest, Positive
from core.errors import UserError
from core.record_file import parse

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
_LOOK_S = 1.0  # between two looks whether the file has changed
_BURST_S = 10.0  # a token that was not used for so long may ask as often as in that time at once
_REMEDY = "delete the line, or make the token again: pocketnets token NAME --file FILE"


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A line of the file of tokens, or the single token.

    Attributes:
        name: whose it is, for logs.
        sha256: SHA-256 of the token, in hex: the file does not tell it.
        admin: whether it may change the models.
        per_minute: requests that it may send in a minute; None for any number.
    """

    name: _Name
    sha256: Digest
    admin: bool = False
    per_minute: Positive | None = None


def digest_of(token: str | bytes) -> str:
    """Returns what a file of tokens has of ``token``."""
    return sha256(token.encode() if isinstance(token, str) else token).hexdigest()


def read_tokens(file: Path) -> dict[str, Token]:
    """Returns the tokens in ``file`` by their digests.

    Raises:
        UserError: there is no such file, a line is no token, or a name or a token comes twice.
    """
    if not file.is_file():
        raise UserError(f"{file}: no file of tokens; make one: pocketnets token NAME --file {file}")
    tokens = [
        parse(Token, line, f"{file}: line {number}", remedy=_REMEDY)
        for number, line in enumerate(file.read_bytes().splitlines(), start=1)
        if line.strip()
    ]
    for kind in ("name", "sha256"):
        for value, count in Counter(getattr(token, kind) for token in tokens).most_common(1):
            if count > 1:
                raise UserError(f"{file}: {kind} {value} comes twice; delete one of the lines")
    return {token.sha256: token for token in tokens}


class Tokens:
    """Says whose token a request has, and whether its limit allows it.

    The file is read again when it has changed. If it cannot be read then, the tokens read before
    stay, and a line on stderr says why. Each process counts the requests that it gets.

    Args:
        single: a token that may do everything; None for none.
        file: the file of named tokens; None for none.
        workers: number of processes, which share the limits evenly.

    Raises:
        UserError: as :func:`read_tokens`.
    """

    def __init__(self, single: str | None, file: Path | None, workers: int = 1) -> None:
        self._single = single.encode() if single else None
        self._all = Token(name="token", sha256=digest_of(single or ""), admin=True)
        self._file = file
        self._workers = workers
        self._known = read_tokens(file) if file else {}
        self._seen = self._stamp()
        self._looked = time.monotonic()
        self._due: dict[str, float] = {}  # by name: when its requests so far are paid for

    @property
    def required(self) -> bool:
        """Returns whether requests need a token."""
        return self._single is not None or self._file is not None

    def find(self, authorization: bytes) -> Token | None:
        """Returns the token in the value of a header ``Authorization``; None for no valid one."""
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":  # in any case (RFC 9110, 11.1)
            return None
        given = given.strip()
        if self._single and hmac.compare_digest(given, self._single):
            return self._all
        if self._file is None:
            return None
        self._follow()
        return self._known.get(digest_of(given))

    def wait(self, token: Token) -> float:
        """Counts a request of ``token``; returns the seconds until it is allowed, 0 for now.

        One that has to wait is not counted (generic cell rate algorithm).
        """
        if token.per_minute is None:
            return 0.0
        now = time.monotonic()
        each = 60 * self._workers / token.per_minute
        due = max(self._due.get(token.name, 0.0), now)
        if (ahead := due + each - now) > max(_BURST_S, each):
            return ahead - max(_BURST_S, each)
        self._due[token.name] = due + each
        return 0.0

    def _follow(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_S or self._file is None:
            return
        self._looked = now
        if (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._known = read_tokens(self._file)
        except UserError as error:
            print(f"error: {error}; the tokens before stay", file=sys.stderr, flush=True)

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._file is None or not self._file.is_file():
            return None
        status = self._file.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
