"""The command ``pocketnets token``."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import tyro

from core import cli
from core.errors import UserError
from core.files import write_whole
from core.record_file import dump
from serving.tokens import NAME, Token, digest_of, read_tokens


@dataclass(frozen=True, kw_only=True)
class MakeToken:
    """Make a token for a service, and print it once.

    The file has its SHA-256 only. A running service takes it within a second; to take it back,
    delete its line.
    """

    name: tyro.conf.Positional[str]
    """Whose it is: it stands in the log."""
    file: Path
    """File of tokens, POCKETNETS_TOKENS of the service; made if it does not exist."""
    admin: bool = False
    """It may load, unload and promote models."""
    per_minute: int | None = None
    """Most requests in a minute. Default: any number."""

    def __call__(self) -> None:
        """Adds the token to the file and prints it."""
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"name is {self.name!r}: it must be of letters, digits and '._@-', at most 64"
            )
        if self.per_minute is not None and self.per_minute < 1:
            raise UserError(f"--per-minute is {self.per_minute}: it must be at least 1")
        known = list(read_tokens(self.file).values()) if self.file.exists() else []
        if any(token.name == self.name for token in known):
            raise UserError(f"{self.file} has a token of {self.name}: delete its line first")
        text = secrets.token_urlsafe(32)
        made = Token(
            name=self.name,
            sha256=digest_of(text),
            admin=self.admin,
            per_minute=self.per_minute,
        )
        write_whole(self.file, b"".join(dump(token) + b"\n" for token in (*known, made)))
        cli.notes().print(f"added to {self.file}; it is shown only now:", soft_wrap=True)
        print(text)
