"""The BentoML service: ``bentoml serve serving.service:Pocketnets``.

The artifact is loaded and checked when this module is imported, and under BentoML's supervisor the
golden batch is reproduced before the first worker starts: it would start a worker that fails to
start again for ever.
"""

from __future__ import annotations

import bentoml
from bentoml.exceptions import BentoMLException

from artifact.opening import open_runtime
from core.errors import UserError
from serving.app import create_app
from serving.predictor import the_predictor
from serving.settings import warn_of_unknown


class ServiceError(UserError, BentoMLException):
    """The service does not start. BentoML prints its own exceptions on one line."""


def _reproduce() -> None:
    """Raises ServiceError unless the golden batch is reproduced; runs once, before any worker."""
    warn_of_unknown()
    try:
        settings = predictor.settings
        with open_runtime(settings.runtime, predictor.artifact, threads=settings.call_threads):
            pass
    except UserError as error:
        raise ServiceError(str(error)) from None


try:
    predictor = the_predictor()
except UserError as error:
    raise ServiceError(str(error)) from None


app = create_app(predictor)


@bentoml.service(
    name="pocketnets",
    workers=predictor.settings.workers,
    http={"host": predictor.settings.host, "port": predictor.settings.port},
    # A span, a log line and BentoML's own counters for each request cost more than everything
    # else it does for one; what we count ourselves is at /metrics.
    tracing={"excluded_urls": "predict"},
    logging={"access": {"enabled": predictor.settings.access_log}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app, path="/")
class Pocketnets:
    """Classifies images: POST one to /predict."""

    check = bentoml.on_deployment(_reproduce)

    def __is_ready__(self) -> bool:
        """Returns whether the warm-up is over; ``/readyz`` asks."""
        return predictor.ready


# Around everything, BentoML's own routes too: what is not listed as public needs the token.
for layer, _, options in app.user_middleware:
    Pocketnets.add_asgi_middleware(layer, **options)  # type: ignore[attr-defined]
