"""Uploads that mean harm, or were broken on their way, against a real server.

All 10,000 run with ``--slow``; else every 25th, and all the bombs.
"""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc_calls
import http2_floods
import other_routes
import psutil
import pytest
from answers import exchange, form, head, judge, post
from bombs import bombs
from samples import samples
from spoiling import spoil
from wrapped import json_upload, pack, packed_bombs

ROOT = Path(__file__).resolve().parents[2]
Environment = dict[str, str]
Serve = Callable[..., Any]

UPLOADS = 9_400
CALLED = 5_000
STALLED = 400  # calls at once without a message
ROUTED = 10_000
BODIES = 600  # that come slowly, cut off, or in another number than promised
CLIENTS = 4
THREADS = 2
MAX_BYTES, MAX_PIXELS = 8_000_000, 2_000_000

# What a worker may have kept after all of them, and have held at once above what it had before.
# The C library keeps up to 110 MiB of pieces, and then no more however many uploads follow.
# An image at the limit is held up to ten times over, four bytes a pixel, in each thread.
KEPT = 128 << 20
HELD = THREADS * (40 * MAX_PIXELS + 3 * MAX_BYTES) + KEPT

TYPES = ("image/png", "image/jpeg", "image/tiff", "image/*", "application/octet-stream")
OTHER_TYPES = ("text/html", "application/json", "image/svg+xml", "image/", "", "multipart/mixed")
GOOD = samples()["png"]

share = pytest.mark.parametrize(
    "every", [25, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"]
)


class Watched:
    """A server whose one worker must be the same, and no larger, when all is over."""

    def __init__(self, server: Any) -> None:
        self.port = server.port
        self.parent, self.worker = server.family

    def rss(self) -> int:
        return int(self.worker.memory_info().rss)

    def peak(self) -> int:
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10

    def check_good(self) -> None:
        good = ("POST", "/predict", {"Content-Type": "image/png"}, GOOD)
        status, body = other_routes.send(self.port, good)
        assert (status, judge(status, body)) == (200, "ok")

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Holds the server to all that has to be as before."""
        for _ in range(50):
            self.check_good()
        before = self.rss()
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")  # the peak is now what it is
        yield
        self.check_good()
        assert self.worker.is_running()
        assert self.worker.status() != psutil.STATUS_ZOMBIE
        assert [child.pid for child in self.parent.children()] == [self.worker.pid]
        print(f"kept {(self.rss() - before) >> 20} MiB, held {(self.peak() - before) >> 20} MiB")
        assert self.rss() - before < KEPT
        assert self.peak() - before < HELD


@pytest.fixture
def watch(artifact_path: Path, serve: Serve, environment: Environment) -> Callable[..., Any]:
    """Returns a context manager: a server with a deadline, whose log must tell of no failure."""

    @contextmanager
    def started(deadline_ms: int, **more: object) -> Iterator[Watched]:
        settings = {
            "ARTIFACT": artifact_path,
            "THREADS": THREADS,
            "MAX_BYTES": MAX_BYTES,
            "MAX_PIXELS": MAX_PIXELS,
            "DEADLINE_MS": deadline_ms,
            **more,
        }
        own = {f"POCKETNETS_{name}": str(value) for name, value in settings.items()}
        with serve("-m", "serving", cwd=ROOT, environment={**environment, **own}) as server:
            yield Watched(server)
            assert server.stop(signal.SIGTERM) == 0
        text = server.log()
        assert "Traceback" not in text, text[text.index("Traceback") :][:3000]
        assert "Warning" not in text, text[-3000:]

    return started


def upload(number: int) -> tuple[str, str, bytes]:
    """Returns path, content type and body of a hostile request; the same for the same number."""
    dice = Random(number)
    way = dice.random()
    count = 5 if 0.80 <= way < 0.85 else 1
    images = [spoil(dice.choice(list(samples().values())), dice) for _ in range(count)]
    if way < 0.70:
        return "/predict", dice.choice(TYPES), images[0]
    if way < 0.80:
        return "/predict", *form(images)
    if way < 0.85:
        return "/predict_batch", *form(images)
    if way < 0.93:  # the form itself is spoiled: its head, mostly
        kind, body = form(images)
        at = dice.choice([100, len(body)])
        path = dice.choice(["/predict", "/predict_batch"])
        return path, kind, spoil(body[:at], dice) + body[at:]
    if way < 0.96:
        return "/predict", dice.choice(OTHER_TYPES), images[0]
    data = dice.choice([b"", b"\0", dice.randbytes(2000), b"GIF89a", b"<svg/>", b"A" * 100_000])
    return "/predict", dice.choice(TYPES), data


def wrapped(number: int) -> tuple[str, str, str, bytes]:
    """Returns path, content type, coding and body of :func:`upload`, or of images in JSON."""
    dice = Random(f"wrapped {number}")
    path, kind, body = json_upload(dice) if dice.random() < 0.15 else upload(number)
    coding, body = pack(body, dice) if dice.random() < 0.15 else ("", body)
    return path, kind, coding, body


def send_all(port: int, numbers: Sequence[int]) -> Counter[str]:
    """Returns how often each answer came; each must be one that is allowed."""

    def client(mine: Sequence[int]) -> Counter[str]:
        found: Counter[str] = Counter()
        for number in mine:
            path, kind, coding, body = wrapped(number)
            try:
                answer = post(port, path, kind, body, coding)
                found[judge(*answer, batch=path == "/predict_batch")] += 1
            except Exception as error:
                raise AssertionError(f"upload {number} to {path}: {error!r}") from error
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [numbers[start::CLIENTS] for start in range(CLIENTS)]
        return sum(pool.map(client, shares), Counter())


@share
def test_spoiled_uploads(watch: Callable[..., Any], every: int) -> None:
    with watch(deadline_ms=60_000) as server, server.unharmed():
        found = send_all(server.port, range(0, UPLOADS, every))
    print(found)
    assert found.total() == len(range(0, UPLOADS, every))
    # Each fate is met: else the uploads have become harmless, or nothing is read any more.
    assert {"ok", "mixed", "not_an_image", "too_many_pixels", "bad_form", "empty"} <= set(found)
    assert {"bad_json", "bad_base64", "bad_gzip", "unsupported_coding"} <= set(found)
    assert found["not_an_image"] > 0.4 * found.total()


@share
def test_the_routes_of_models_and_of_the_inference_protocol(
    watch: Callable[..., Any], every: int
) -> None:
    def answer(number: int) -> int:
        status, body = other_routes.send(server.port, other_routes.asked(number))
        assert status < 500, (number, status, body[:500])
        assert not body or json.loads(body) is not None
        return status

    numbers = range(0, ROUTED, every)
    with (
        watch(deadline_ms=60_000, TOKEN=other_routes.TOKEN) as server,
        server.unharmed(),
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        found = Counter(pool.map(answer, numbers))
    print(found)
    assert found.total() == len(numbers)
    assert {200, 400, 404, 405, 409} <= set(found)


@share
def test_calls_of_grpc(watch: Callable[..., Any], port: int, every: int) -> None:
    numbers = range(0, CALLED, every)
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]

    def client(mine: Sequence[int]) -> Counter[str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            return Counter(grpc_calls.call(channel, number) for number in mine)

    with (
        watch(deadline_ms=2000, TOKEN=other_routes.TOKEN, GRPC_PORT=port) as server,
        server.unharmed(),
        ThreadPoolExecutor(CLIENTS) as pool,
        grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel,
    ):
        found = sum(pool.map(client, [numbers[at::CLIENTS] for at in range(CLIENTS)]), Counter())
        assert grpc_calls.is_ready(channel)  # it has heard how many calls it may begin at once
        stalled = Counter(grpc_calls.stall(channel, STALLED))
        list(pool.map(lambda number: grpc_calls.no_grpc(port, number), numbers))
        assert grpc_calls.is_ready(channel)
    print(found, stalled)
    assert found.total() == len(numbers)
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"} <= set(found)
    assert {"FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"} <= set(found)
    # As many as the queue has places wait until the deadline, the others go at once.
    assert set(stalled) == {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert stalled.total() == STALLED


@pytest.mark.parametrize(
    ("names", "reads"),
    [(http2_floods.FLOODS, True), (("ping", "reset", "static", "settings"), False)],
    ids=["all", "unread"],
)
def test_floods_of_http2(
    watch: Callable[..., Any], port: int, names: Sequence[str], *, reads: bool
) -> None:
    with (
        watch(deadline_ms=2000, TOKEN=other_routes.TOKEN, GRPC_PORT=port) as server,
        server.unharmed(),
    ):
        for name in names:
            before = server.rss()
            http2_floods.flood(port, name, reads=reads)
            server.check_good()
            assert server.peak() - before < KEPT, name
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert grpc_calls.is_ready(channel)


def test_bombs(watch: Callable[..., Any]) -> None:
    expected = {name: status for name, (status, _) in bombs().items()}
    expected |= {f"packed: {name}": status for name, (status, *_) in packed_bombs().items()}
    with watch(deadline_ms=60_000) as server, server.unharmed():
        answers = {
            name: post(server.port, "/predict", "image/*", data)
            for name, (_, data) in bombs().items()
        }
        answers |= {
            f"packed: {name}": post(server.port, "/predict", kind, body, coding)
            for name, (_, kind, coding, body) in packed_bombs().items()
        }
    for status, body in answers.values():
        judge(status, body)
    assert {name: status for name, (status, _) in answers.items()} == expected


def fate(answer: tuple[int, bytes] | None) -> str:
    """Returns what came of what may be no request at all."""
    if answer is None:
        return "lost"
    return judge(*answer)


def late(dice: Random, port: int) -> str:
    """Sends less than is promised, then nothing."""
    kept = dice.randrange(len(GOOD))
    answer = exchange(port, head(Content_Length=len(GOOD)) + GOOD[:kept])
    assert answer is not None
    return judge(*answer)


def late_form(dice: Random, port: int) -> str:
    kind, body = form([GOOD])
    start = head(Content_Type=kind, Content_Length=len(body))
    answer = exchange(port, start + body[: dice.randrange(len(body))])
    assert answer is not None
    return judge(*answer)


def late_chunks(dice: Random, port: int) -> str:
    kept = dice.randrange(1, len(GOOD))
    answer = exchange(port, head(Transfer_Encoding="chunked") + b"%x\r\n" % kept + GOOD[:kept])
    assert answer is not None
    return judge(*answer)


def lost(dice: Random, port: int) -> str:
    """Hangs up in the middle; whether it hears an answer is its own affair."""
    data = head(Content_Length=len(GOOD)) + GOOD
    return fate(exchange(port, data[: dice.randrange(len(data))], hang_up=True))


def reset(dice: Random, port: int) -> str:
    """Leaves with all that was sent, before the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(head(Content_Length=len(GOOD)) + GOOD)
    return "lost"


def short_promise(dice: Random, port: int) -> str:
    """Sends more than it promised: an image cut short, then what is no request."""
    promised = dice.randrange(1, len(GOOD) - 20)
    return fate(exchange(port, head(Content_Length=promised) + GOOD))


def good_chunks(dice: Random, port: int) -> str:
    size = dice.choice([1, 7, 1000, len(GOOD)])
    parts = [GOOD[at : at + size] for at in range(0, len(GOOD), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    answer = exchange(port, head(Transfer_Encoding="chunked") + body)
    assert answer is not None
    assert judge(*answer) == "ok"
    return "good_chunks"


def huge_promise(dice: Random, port: int) -> str:
    promised = dice.choice([MAX_BYTES + 1, 2**31, 2**63, 10**18])
    answer = exchange(port, head(Content_Length=promised) + GOOD)
    assert answer is not None
    assert (answer[0], judge(*answer)) == (413, "too_large")
    return "too_large"


def no_http(dice: Random, port: int) -> str:
    """Sends what is no request: the parser's own words, or ours, or no answer."""
    body = dice.choice(
        [
            head(Content_Length="x"),
            head(Content_Length=-1),
            head(Content_Length="9" * 5000),
            head(Content_Length=1).replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n") + GOOD,
            head(Transfer_Encoding="chunked") + b"zz\r\n",
            head(Transfer_Encoding="chunked") + b"f" * 40 + b"\r\n",
            head(Content_Length=1, X="\0"),
            dice.randbytes(500) + b"\r\n\r\n",
            GOOD,
            b"GET /" + b"a" * 200_000,
            b"\r\n" * 1000,
        ]
    )
    return fate(exchange(port, body, hang_up=True))


WAYS: tuple[Callable[[Random, int], str], ...] = (
    *(late, late_form, late_chunks, lost, reset),
    *(short_promise, good_chunks, huge_promise, no_http),
)


@share
def test_bodies_that_are_late_lost_or_not_as_promised(
    watch: Callable[..., Any], every: int
) -> None:
    def send(number: int) -> str:
        dice, way = Random(number), WAYS[number % len(WAYS)]
        try:
            return way(dice, server.port)
        except Exception as error:
            raise AssertionError(f"body {number}, {way.__name__}: {error!r}") from error

    with watch(deadline_ms=2000) as server, server.unharmed(), ThreadPoolExecutor(32) as pool:
        numbers = range(0, BODIES, min(every, 10))
        found = Counter(pool.map(send, numbers))
    print(found)
    assert found.total() == len(numbers)
    assert set(found) >= {"slow_upload", "lost", "good_chunks", "too_large", "bad_request"}


def test_the_bound_on_memory_can_fail() -> None:
    assert UPLOADS * 16_000 > KEPT  # what a leak of 16 kB an upload comes to
    tile = 20_000**2
    assert tile > HELD  # what "tiff, huge tile" inflates to
