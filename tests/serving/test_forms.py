"""Forms in pieces of any size."""

from __future__ import annotations

import pytest
from multipart import MultipartError

from serving.bodies import FIELD, Form
from serving.errors import Refusal

TYPE = "multipart/form-data; boundary=b"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\r\n--\r\n--c\r\n"
    b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
    b"--b--\r\nand more"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(BODY)])
def test_files_are_kept_and_text_is_skipped(size: int) -> None:
    form = Form(TYPE, max_images=2, advice="")
    for start in range(0, len(BODY), size):
        form.feed(BODY[start : start + size])
    assert form.images() == [b"\xff\xd8\r\n--\r\n--c", b""]


def test_more_images_than_allowed() -> None:
    with pytest.raises(MultipartError, match="more images than 1: ask for two"):
        Form(TYPE, max_images=1, advice="ask for two").feed(BODY)


def test_more_fields_than_any_form_has() -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
    with pytest.raises(MultipartError):
        Form(TYPE, max_images=1, advice="").feed(field * 18)


def test_a_form_that_is_cut_off() -> None:
    form = Form(TYPE, max_images=2, advice="")
    form.feed(BODY[:-20])
    with pytest.raises(MultipartError):
        form.images()


def part(*headers: str, body: bytes = b"xyz", boundary: str = "b") -> bytes:
    """Returns a form of one part with these headers."""
    lines = [f"--{boundary}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body + f"\r\n--{boundary}--".encode()


def read(body: bytes, content_type: str = TYPE) -> list[bytes | str]:
    form = Form(content_type, max_images=1, advice="")
    form.feed(body)
    return form.images()


DISPOSITION = f"Content-Disposition: form-data; name={FIELD}"


@pytest.mark.parametrize(
    "headers",
    [
        [f"{DISPOSITION}; filename=a.jpg"],
        [f"{DISPOSITION}; filename*=UTF-8''na%C3%AFve.jpg"],
        [f"Content-Disposition: form-data; FileName*=utf-8'en'a.jpg; name={FIELD}"],
        [DISPOSITION, "Content-Type: image/jpeg"],
        ["Content-Type: image/x-anything", DISPOSITION],
        [DISPOSITION, "content-type: application/octet-stream"],
        [f"{DISPOSITION}; filename=a", "Content-Type: text/plain"],
    ],
)
def test_what_a_file_is(headers: list[str]) -> None:
    assert read(part(*headers)) == [b"xyz"]


@pytest.mark.parametrize(
    "headers",
    [
        [DISPOSITION],
        [DISPOSITION, "Content-Type: text/plain; charset=utf-8"],
        ['Content-Disposition: form-data; name="image; filename*=x"'],
    ],
)
def test_text_is_no_file(headers: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        read(part(*headers))
    assert caught.value.code == "no_image"


@pytest.mark.parametrize(
    ("parameter", "boundary"),
    [
        ("boundary=----=_Part_1_2.3", "----=_Part_1_2.3"),
        ('boundary="----=_Part_1_2.3"', "----=_Part_1_2.3"),
        ("charset=utf-8; BOUNDARY = a/b:c?(d) ; x=y", "a/b:c?(d)"),
        ('boundary="a b\\"c;d"; charset=utf-8', 'a b"c;d'),
    ],
)
def test_boundaries_quoted_or_not(parameter: str, boundary: str) -> None:
    body = part(f"{DISPOSITION}; filename=a", boundary=boundary)
    assert read(body, f"multipart/form-data; {parameter}") == [b"xyz"]


@pytest.mark.parametrize(
    ("coding", "found"),
    [("base64", "xyz"), (" BASE64 ", "xyz"), ("binary", b"xyz"), ("8bit", b"xyz"), ("", b"xyz")],
)
def test_base64_of_a_part_stays_text(coding: str, found: bytes | str) -> None:
    headers = (f"{DISPOSITION}; filename=a", f"content-transfer-encoding: {coding}")
    assert read(part(*headers)) == [found]


def test_another_encoding_of_a_part_is_refused() -> None:
    with pytest.raises(MultipartError, match="quoted-printable"):
        read(part(f"{DISPOSITION}; filename=a", "Content-Transfer-Encoding: quoted-printable"))


def refused(form: Form) -> Refusal:
    with pytest.raises(Refusal) as caught:
        form.images()
    assert caught.value.status == 400
    return caught.value


def test_what_else_a_form_holds_is_told_where_there_is_no_image() -> None:
    none = Form(TYPE, max_images=1, advice="")
    none.feed(part('Content-Disposition: form-data; name="picture"; filename="b"'))
    assert refused(none).code == "no_image"
    assert refused(none).detail.endswith("the file 'picture'")
    many = Form(TYPE, max_images=1, advice="")
    for number in range(9):
        name = "\0" * 1000 if number == 1 else f"n{number}\t"
        lines = ("--b", f'Content-Disposition: form-data; name="{name}"', "", "", "")
        many.feed("\r\n".join(lines).encode())
    many.feed(b"--b--")
    told = refused(many).detail
    assert "\t" not in told
    assert told.endswith("more")
    assert len(told) < 300


@pytest.mark.parametrize(
    ("other", "named"),
    [('name="mask"; filename="m.png"', "'mask'"), ('name="top_k"', "?top_k=")],
)
def test_what_would_be_ignored_is_refused(other: str, named: str) -> None:
    form = Form(TYPE, max_images=2, advice="")
    form.feed(f"--b\r\nContent-Disposition: form-data; {other}\r\n\r\n3\r\n".encode() + BODY)
    assert refused(form).code == "bad_form"
    assert named in refused(form).detail
