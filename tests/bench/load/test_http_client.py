from __future__ import annotations

import io
import socket
from collections.abc import Callable

import pytest
from python_multipart.multipart import File, parse_form

from bench.load.http_client import (
    Address,
    Answer,
    Connection,
    NoAnswer,
    check_loopback,
    make_form,
    make_request,
    read_answer,
)
from bench.load.loops import run_loop
from core.errors import UserError

Reply = Callable[..., bytes]
Serve = Callable[..., Address]


def send(address: Address, *requests: bytes) -> list[Answer | str]:
    """Returns what comes back for each request over one connection; reasons are strings."""

    async def main() -> list[Answer | str]:
        connection = Connection(address)
        found: list[Answer | str] = []
        for request in requests:
            try:
                found.append(await connection.send(request))
            except NoAnswer as error:
                found.append(str(error))
        connection.close()
        return found

    return run_loop(main())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:3000/predict?top_k=1", Address("127.0.0.1", 3000, "/predict?top_k=1")),
        ("http://localhost/", Address("localhost", 80, "/")),
        ("http://[::1]:1", Address("::1", 1, "/")),
    ],
)
def test_this_machine_is_allowed(url: str, address: Address) -> None:
    assert check_loopback(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/predict",
        "http://10.0.0.1/",
        "http://127.0.0.1@example.com/",
        "https://127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nHost: example.com",
        "nothing",
        "http://[/",
    ],
)
def test_other_machines_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="load is sent only to"):
        check_loopback(url)


def test_a_request_arrives_as_it_was_made(serve: Serve, reply: Reply) -> None:
    seen: list[tuple[list[bytes], bytes]] = []

    async def handler(head: bytes, body: bytes) -> bytes:
        seen.append((head.split(b"\r\n"), body))
        return reply(201, b"made")

    address = serve(handler)
    post = make_request(address, b"\x00\r\n\r\n", "image/png", token="key")
    get = make_request(address.with_path("/model"))
    assert send(address, post, get) == [Answer(201, b"made")] * 2
    (first, body), (second, nothing) = seen
    assert first[0] == b"POST /predict HTTP/1.1"
    assert f"Host: 127.0.0.1:{address.port}".encode() in first
    assert b"Authorization: Bearer key" in first
    assert b"Content-Type: image/png" in first
    assert body == b"\x00\r\n\r\n"
    assert (second[0], nothing) == (b"GET /model HTTP/1.1", b"")


def test_a_form_holds_the_file() -> None:
    content = bytes(range(256)) * 3 + b"\r\n--"
    body, content_type = make_form(content)
    files: list[File] = []
    headers = {"Content-Type": content_type.encode()}
    parse_form(headers, io.BytesIO(body), None, files.append)  # type: ignore[arg-type]
    (file,) = files
    file.file_object.seek(0)
    assert (file.field_name, file.file_object.read()) == (b"image", content)
    file.close()


def test_an_answer_in_pieces_is_read_once_it_is_whole(reply: Reply) -> None:
    whole = reply(429, b"a\r\n\r\nb", "Retry-After: 1")
    assert all(read_answer(bytearray(whole[:size])) is None for size in range(len(whole)))
    assert read_answer(bytearray(whole)) == (Answer(429, b"a\r\n\r\nb"), False)


def test_a_connection_is_kept_unless_the_server_closes_it(serve: Serve, reply: Reply) -> None:
    addresses = []

    async def handler(head: bytes, body: bytes) -> bytes:
        addresses.append(body)
        closes = ["Connection: close".lower()] if body == b"last" else []
        return reply(200, body, *closes)

    address = serve(handler)
    requests = [make_request(address, body, "image/png") for body in (b"one", b"last", b"new")]
    bodies = [Answer(200, body) for body in (b"one", b"last", b"new")]
    assert send(address, *requests) == bodies


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{}", "closed"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 999 OK\r\ncontent-length: 2\r\n\r\n{}", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", "not HTTP"),
        (b"x" * 100_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}", "no Content-Length"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
            "no Content-Length",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
            "no Content-Length",
        ),
    ],
)
def test_what_is_no_answer_is_named_and_the_next_request_is_answered(
    serve: Serve, reply: Reply, answer: bytes | None, reason: str
) -> None:
    async def handler(head: bytes, body: bytes) -> bytes | None:
        return reply(200, b"good") if body == b"good" else answer

    address = serve(handler)
    bad, good = (make_request(address, body, "image/png") for body in (b"bad", b"good"))
    assert send(address, bad, good) == [reason, Answer(200, b"good")]


def test_nobody_listening_is_refused() -> None:
    with socket.socket() as held:  # bound, not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        assert send(Address("127.0.0.1", held.getsockname()[1], "/"), b"") == ["refused"]
