"""A headless Chromium for tests, spoken to over a pipe: no port, no driver, no package.

It runs as root, reaches this machine only, and dies with the test. The protocol is Chromium's own:
JSON with a zero byte after it, https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0  # for anything to happen: a busy machine is slow, a hung browser is killed
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # refuses to start as root with one
    "--disable-gpu",
    "--hide-scrollbars",  # they take 15 pixels of a viewport on some systems, none on others
    "--disable-dev-shm-usage",  # small in containers
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
# Chromium reads from 3 and writes to 4. Moved out of the way first: either may be one of ours.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """Returns the path of a Chromium, or None without one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserError(Exception):
    """Chromium ended, said no, or took too long."""


class Page:
    """What a browser shows of one address.

    Attributes:
        errors: what scripts logged as errors or left uncaught, and what failed to load.
        requests: every address that was asked for, that of the page itself first.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.target = target
        self._browser = browser
        self._session = session
        self.errors: list[str] = []
        self.requests: list[str] = []

    @property
    def dom(self) -> str:
        """The document as HTML, as it stands now."""
        return str(self.evaluate("document.documentElement.outerHTML"))

    def evaluate(self, script: str) -> Any:
        """Returns the value of an expression in the page; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {_describe(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Returns as soon as an expression is true in the page; BrowserError if it never is."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise BrowserError(f"not true in {SECONDS:g} s: {script}; errors: {self.errors}")
            time.sleep(0.05)

    def screenshot(self, path: Path) -> Path:
        """Returns ``path``, now a PNG of the whole page, however long."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Returns what Chromium answers to a method of its protocol, about this page."""
        return self._browser.call(method, self._session, **parameters)

    def _hear(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(_describe(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
            words = (str(a.get("value", a.get("description", ""))) for a in event["args"])
            self.errors.append(" ".join(words))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.errors.append(f"{event['entry']['text']} ({event['entry'].get('url', '')})")


class Browser:
    """One Chromium; a context manager, whose end is the end of the process and its profile.

    Attributes:
        path: of the program.
        pid: of its first process, which leads the group of all others.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        hers_in, self._out = os.pipe()
        self._in, hers_out = os.pipe()
        command = [sys.executable, "-c", _START, str(hers_in), str(hers_out), path, *_FLAGS]
        with open(Path(self._profile, "log"), "wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--user-data-dir={self._profile}", "about:blank"],
                pass_fds=(hers_in, hers_out),
                start_new_session=True,  # a group of its own, to be killed as one
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        os.close(hers_in)
        os.close(hers_out)
        self._buffer = b""
        self._asked = 0
        self._pages: dict[str, Page] = {}
        self._loaded: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(
        self,
        where: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        mobile: bool = False,
    ) -> Page:
        """Returns the page at a path or URL once it has loaded.

        Args:
            where: a file, or a URL on this machine.
            width: of the viewport, in CSS pixels.
            height: likewise.
            dark: whether the user prefers dark colours.
            mobile: whether the screen is a phone's: pages are laid out by their viewport tag.
        """
        url = where.resolve().as_uri() if isinstance(where, Path) else where
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.discard(session)
        answer = page.call("Page.navigate", url=url)
        if error := answer.get("errorText"):
            raise BrowserError(f"{url}: {error}")
        deadline = time.monotonic() + SECONDS
        while session not in self._loaded:
            self._listen(self._receive(deadline))
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Returns what Chromium answers to a method of its protocol."""
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": parameters}
        if session:
            asked["sessionId"] = session
        try:
            os.write(self._out, json.dumps(asked).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserError(f"Chromium has ended: {self._log()}") from None
        deadline = time.monotonic() + SECONDS
        while (message := self._receive(deadline)).get("id") != self._asked:
            self._listen(message)
        if "error" in message:
            raise BrowserError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def close_pages(self) -> None:
        """Closes all pages that were opened."""
        for page in self._pages.values():
            self.call("Target.closeTarget", targetId=page.target)
        self._pages.clear()

    def close(self) -> None:
        """Ends the browser and all its processes; its profile is deleted."""
        os.close(self._out)  # the end of the pipe is the end of a healthy browser
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _listen(self, message: dict[str, Any]) -> None:
        session, method = message.get("sessionId", ""), message.get("method", "")
        if session in self._pages:
            self._pages[session]._hear(method, message["params"])
        if method == "Page.loadEventFired":
            self._loaded.add(session)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise BrowserError(f"Chromium did not answer in {SECONDS:g} s: {self._log()}")
            if not (piece := os.read(self._in, 1 << 20)):
                raise BrowserError(f"Chromium has ended: {self._log()}")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return Path(self._profile, "log").read_text(errors="replace")[-2000:]
        return "no log"


def _describe(details: dict[str, Any]) -> str:
    thrown = details.get("exception", {}).get("description", "")
    return f"{details['text']} {thrown}".strip()
