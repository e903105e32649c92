"""A hub of files over HTTP, as huggingface_hub asks for them; for tests without a network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serves ``files``, by ``OWNER/REPO/FILE``, and gives the address to set HF_ENDPOINT to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            owner, repo, _, _, file = self.path.lstrip("/").split("/", 4)
            content = files.get(f"{owner}/{repo}/{file}")
            if content is None:
                known = any(name.startswith(f"{owner}/{repo}/") for name in files)
                self.send_response(404)
                code = "EntryNotFound" if known else "RepoNotFound"
                self.send_header("X-Error-Code", code)
                content = b""
            else:
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
