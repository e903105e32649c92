"""Gzip data, chunk by chunk, to what it holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_PIECE = 1 << 20  # bytes that are held at once, whatever a chunk inflates to
_MEMBERS = 100  # each costs as much as kilobytes of data, and may hold nothing
_GZIP = 16 + zlib.MAX_WBITS  # for zlib: with the head and the checksum of gzip


class GzipError(ValueError):
    """Data that is no gzip, broken, cut off or followed by something else."""


class Gunzip:
    """What gzip data holds (RFC 1952): one member, or several that follow each other.

    Raises:
        GzipError: in every method.
    """

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._members = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields what the next bytes inflate to, in pieces of up to 1 MiB.

        Nothing is inflated before it is asked for, so whoever counts can stop in time.
        """
        while chunk:
            if self._member is None:
                self._start()
            member = self._member
            assert member is not None
            try:
                piece = member.decompress(chunk, _PIECE)
            except zlib.error as error:
                reason = str(error).rpartition(": ")[2]
                raise GzipError(f"member {self._members}: {reason}") from None
            chunk = member.unconsumed_tail
            if member.eof:
                chunk, self._member = member.unused_data, None
            if piece:
                yield piece

    def close(self) -> None:
        """Checks that nothing is missing, after the last bytes."""
        if self._member is not None or not self._members:
            raise GzipError("it is cut off")

    def _start(self) -> None:
        self._members += 1
        if self._members > _MEMBERS:
            raise GzipError(f"more than {_MEMBERS} members")
        self._member = zlib.decompressobj(_GZIP)
