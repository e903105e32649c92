"""A hub that repositories are written to over HTTP, as huggingface_hub does it; without a network.

Files over ``LARGE`` bytes go through large file storage, by the LFS batch API. A commit must name
the newest one as its parent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

LARGE = 1000


@dataclass
class Repository:
    """A repository: its files, whether it is private, and the commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass
class Hub:
    """The hub: repositories by name, and what to refuse."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    refuse: str = ""  # the part of a path that is answered with 403


@contextmanager
def writable_hub() -> Iterator[Hub]:
    """Gives the hub, whose endpoint HF_ENDPOINT is to be set to."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            if hub.refuse and hub.refuse in self.path:
                self._answer(403, {"error": "forbidden"})
            else:
                self._answer(*_posted(hub, self.path.partition("?")[0], body))

        def do_PUT(self) -> None:
            body = self._body()
            hub.stored[hashlib.sha256(body).hexdigest()] = body
            self._answer(200, {})

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].removeprefix("/api/models/")
            found = hub.repositories.get(name.removesuffix("/revision/main"))
            if found is None:
                self._answer(404, {"error": "Repository not found"})
            else:
                self._answer(200, {"id": name, "sha": found.sha, "private": found.private})

        def _body(self) -> bytes:
            if length := self.headers.get("Content-Length"):
                return self.rfile.read(int(length))
            parts = []  # in chunks, each after a line with its size
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def _posted(hub: Hub, path: str, body: bytes) -> tuple[int, Any]:
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path.endswith(".git/info/lfs/objects/batch"):
        upload = {"upload": {"href": f"{hub.endpoint}/lfs"}}
        wanted = [{**each, "actions": upload} for each in json.loads(body)["objects"]]
        return 200, {"transfer": "basic", "objects": wanted}
    owner, name, action = path.removeprefix("/api/models/").split("/")[:3]
    repository = hub.repositories[f"{owner}/{name}"]
    if action == "preupload":
        return 200, {
            "files": [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
        }
    if action == "paths-info":
        asked = parse_qs(body.decode())["paths"]
        return 200, [_info(repository, each) for each in asked if each in repository.files]
    assert action == "commit"
    return _commit(hub, repository, f"{owner}/{name}", body)


def _create(hub: Hub, asked: dict[str, Any]) -> tuple[int, Any]:
    name = f"{asked['organization']}/{asked['name']}"
    url = {"url": f"{hub.endpoint}/{name}"}
    if name in hub.repositories:
        return 409, {"error": "You already created this model repo", **url}
    private = asked.get("private", asked.get("visibility") == "private")
    hub.repositories[name] = Repository(private=bool(private))
    return 200, url


def _info(repository: Repository, path: str) -> dict[str, Any]:
    data = repository.files[path]
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    known: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if path in repository.large:
        digest = hashlib.sha256(data).hexdigest()
        known["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        known["oid"] = "0" * 40  # of the pointer
    return known


def _commit(hub: Hub, repository: Repository, name: str, body: bytes) -> tuple[int, Any]:
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repository.sha):
        return 412, {"error": "A commit has happened since. Please refresh and try again."}
    new: dict[str, bytes] = {}
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "lfsFile":
            new[value["path"]] = hub.stored[value["oid"]]
            repository.large.add(value["path"])
        else:
            new[value["path"]] = base64.b64decode(value["content"])
    repository.files |= new
    repository.commits.append({**header, "files": sorted(new)})
    url = f"{hub.endpoint}/{name}/commit/{repository.sha}"
    return 200, {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""}
