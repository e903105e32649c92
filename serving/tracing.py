"""OpenTelemetry traces of requests, sent to a collector by OTLP; only if asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import UserError

NAME = "OTEL_SERVICE_NAME"  # OpenTelemetry's own variables say where traces go, and how many
_UNTRACED = "healthz,livez,readyz,metrics,page,static_content"  # nobody waits for these
_UNTRACED += ",v2/health,ServerLive,ServerReady,grpc.health"


def traced(exporter: Any = None) -> Sequence[Middleware]:
    """Returns the middleware that traces requests, the outermost first.

    A span has what OpenTelemetry's instrumentation of ASGI knows, and of an answer the name and
    version of the model and the milliseconds of each stage. A thread sends the spans; if no
    collector takes them, they are lost, and requests go on.

    Args:
        exporter: takes the spans; None for OTLP over HTTP.

    Raises:
        UserError: the extra ``tracing`` is not installed.
    """
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if NAME in os.environ else {SERVICE_NAME: "pocketnets"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter or exporter_class()()))
    return (
        Middleware(
            OpenTelemetryMiddleware,
            tracer_provider=provider,
            excluded_urls=_UNTRACED,
            exclude_spans=["receive", "send"],
        ),
        Middleware(_Stages),
    )


def exporter_class() -> Any:
    """Returns what sends spans by OTLP over HTTP.

    Raises:
        UserError: the extra ``tracing`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UserError(
            "POCKETNETS_TRACING is 1, which needs the exporter of OpenTelemetry: "
            "pip install '.[tracing]'"
        ) from None
    return OTLPSpanExporter


class _Stages:
    """Writes into the span of a request what the response says of the model and its stages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        if not span.is_recording():
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if "model" in scope:
                    name, version = scope["model"]
                    span.set_attributes({"pocketnets.model": name, "pocketnets.version": version})
                for header, value in message["headers"]:
                    if header == b"server-timing":
                        span.set_attributes(_stages(value.decode()))
            await send(message)

        await self._app(scope, receive, noted)


def _stages(timing: str) -> dict[str, float]:
    """Returns the attributes of a header ``Server-Timing``, as the service writes it."""
    stages = (part.split(";dur=") for part in timing.split(", "))
    return {f"pocketnets.{stage}_ms": float(ms) for stage, ms in stages}
