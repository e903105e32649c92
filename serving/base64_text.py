"""Base64 text, as people's programs write it, to the bytes of an image."""

from __future__ import annotations

import string
from binascii import a2b_base64

from serving.uploads import ENVELOPE, TEXT, Refusal, too_large

_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet for URLs (RFC 4648, section 5)
_BREAKS = b"\r\n\t"
_ALLOWED = (string.ascii_letters + string.digits + "+/=").encode()
_STEP = 1 << 20  # characters at once: no other thread runs meanwhile


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Returns the bytes that ``text`` stands for: base64, or a data URI of it.

    Both alphabets are taken, with padding or without, and with line breaks. A data URI's media
    type is not looked at. No more than ``max_bytes`` are ever decoded.

    Raises:
        Refusal: it is anything else, or stands for too many bytes.
    """
    if len(text) > TEXT * max_bytes + ENVELOPE:  # before it is copied
        raise too_large(max_bytes)
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise _bad("a data URI must say ;base64 before its comma")
    elif text[:8].lower().startswith(("http://", "https://")):
        raise _bad("it is an address, and nothing is fetched: send what it holds")
    text = text.strip()
    packed = text.encode("ascii", "replace").translate(_STANDARD, _BREAKS)
    if foreign := packed.translate(None, _ALLOWED):
        place = text.encode("ascii", "replace").index(foreign[:1])
        hint = " (a '+' that was taken for one?)" if foreign[:1] == b" " else ""
        raise _bad(f"character {place + 1} is {text[place]!r}{hint}")
    bare = packed.rstrip(b"=")
    missing = -len(bare) % 4
    if missing == 3:
        raise _bad("it is cut off: a single character is left over")
    if b"=" in bare or len(packed) - len(bare) not in (0, missing):
        raise _bad("its padding is wrong: it is one '=' or two, at the end")
    if len(bare) * 3 // 4 > max_bytes:
        raise too_large(max_bytes)
    bare += b"=" * missing
    return b"".join(
        [a2b_base64(bare[start : start + _STEP]) for start in range(0, len(bare), _STEP)]
    )


def _bad(reason: str) -> Refusal:
    return Refusal(400, "bad_base64", f"the image is not base64: {reason}")
