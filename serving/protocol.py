"""HTTP connections that end politely."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 0.5


class PoliteProtocol(HttpToolsProtocol):
    """uvicorn's, which on shutdown closes a connection that was accepted and has not spoken yet.

    Its client has sent a request by then, as far as it knows, and would lose it. So a connection
    without a request in hand gets half a second for one.
    """

    def shutdown(self) -> None:
        """Closes the connection after what is in hand, or after half a second."""
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self.loop.call_later(LINGER_S, super().shutdown)
        else:
            super().shutdown()
