"""A service that answers gRPC in this process, and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx
import pytest

from serving.app import create_app
from serving.grpc_messages import SERVICE, message_classes
from serving.models import Models
from serving.repository import first_listing
from serving.settings import Settings

SECONDS = 20  # a call that hangs fails by then


class Client:
    """Calls methods of the service, whose HTTP is asked in this process.

    Attributes:
        channel: by which calls go.
        http: a client of the same service.
        models: what it serves.
        told: metadata that came after the last answer.
    """

    def __init__(self, channel: Any, http: httpx.AsyncClient, models: Models) -> None:
        self.channel = channel
        self.http = http
        self.models = models
        self.told: dict[str, str] = {}

    async def send(self, method: str, body: bytes, service: str = SERVICE, **options: Any) -> bytes:
        """Returns the bytes of the response to those of a message."""
        call = self.channel.unary_unary(f"/{service}/{method}")(
            body, **{"timeout": SECONDS, **options}
        )
        try:
            answer: bytes = await call
        finally:
            self.told = dict(await call.trailing_metadata())
        return answer

    async def ask(self, method: str, metadata: dict[str, str] | None = None, **fields: Any) -> Any:
        """Returns the response to a message with ``fields``."""
        classes = message_classes()
        body = classes[f"{method}Request"](**fields).SerializeToString()
        answer = await self.send(method, body, metadata=tuple((metadata or {}).items()))
        return classes[f"{method}Response"].FromString(answer)

    async def refused(self, method: str, **options: Any) -> tuple[str, str]:
        """Returns name and detail of the code of a call that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.ask(method, **options)
        return error.value.code().name, str(error.value.details())


def talk(say: Callable[[Client], Awaitable[Any]], settings: Settings) -> None:
    """Runs ``say`` with a client of a service with ``settings``, which have a port of gRPC.

    The call that it may return is awaited once the service has ended.
    """

    async def main() -> None:
        models = Models(settings, first_listing(settings))
        app = create_app(models)
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel,
        ):
            async with app.router.lifespan_context(app):
                pending = await say(Client(channel, http, models))
            if pending is not None:
                await pending

    asyncio.run(main())
