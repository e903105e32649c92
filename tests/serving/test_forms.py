"""Forms in pieces of any size."""

from __future__ import annotations

import pytest
from multipart import MultipartError

from serving.forms import Form

TYPE = "multipart/form-data; boundary=b"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\r\n--\r\n--c\r\n"
    b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="other"; filename="b"\r\n\r\nxyz\r\n'
    b"--b--\r\nand more"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(BODY)])
def test_images_alone_are_kept(size: int) -> None:
    form = Form(TYPE, max_images=2)
    for start in range(0, len(BODY), size):
        form.feed(BODY[start : start + size])
    assert form.images() == [b"\xff\xd8\r\n--\r\n--c", b""]


def test_more_images_than_allowed() -> None:
    with pytest.raises(MultipartError, match="more than 1 images"):
        Form(TYPE, max_images=1).feed(BODY)


def test_more_fields_than_any_form_has() -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
    with pytest.raises(MultipartError):
        Form(TYPE, max_images=1).feed(field * 18)


def test_a_form_that_is_cut_off() -> None:
    form = Form(TYPE, max_images=2)
    form.feed(BODY[:-20])
    with pytest.raises(MultipartError):
        form.images()
