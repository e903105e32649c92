"""The BentoML service: ``bentoml serve serving.service:Pocketnets``.

The artifact is loaded and checked when this module is imported. Under BentoML's supervisor the
golden batch is checked before the first worker starts, as it restarts failing workers for ever. So
is the port of gRPC, which stays reserved for the workers of this service.
"""

from __future__ import annotations

from contextlib import ExitStack

import bentoml
from bentoml.exceptions import BentoMLException

from artifact.opening import open_runtime
from core.errors import UserError
from serving.app import create_app
from serving.models import the_models
from serving.ports import check_grpc, reserved
from serving.settings import warn_of_unknown
from serving.state import State


class ServiceError(UserError, BentoMLException):
    """The service cannot start. BentoML prints exceptions of its own type on one line."""


_until_exit = ExitStack()


def _prepare() -> None:
    """Reserves the port of gRPC and reproduces the golden batch; runs once, before any worker.

    Raises:
        ServiceError: the port is taken, or the artifact answers otherwise.
    """
    warn_of_unknown()
    try:
        check_grpc(models.settings)
        _until_exit.enter_context(reserved(models.settings))
        predictor = models.default.predictor
        settings = predictor.settings
        with open_runtime(settings.runtime, predictor.artifact, threads=settings.call_threads):
            pass
    except UserError as error:
        raise ServiceError(str(error)) from None


try:
    models = the_models()
except UserError as error:
    raise ServiceError(str(error)) from None


app = create_app(models, state=State.from_environment())


@bentoml.service(
    name="pocketnets",
    workers=models.settings.workers,
    http={"host": models.settings.host, "port": models.settings.port},
    # BentoML's tracing, logging and counters cost more per request than everything else it does;
    # our own metrics are at /metrics.
    tracing={"excluded_urls": "predict"},
    logging={"access": {"enabled": models.settings.access_log == "1"}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app, path="/")
class Pocketnets:
    """Classifies images: POST one to /predict."""

    check = bentoml.on_deployment(_prepare)

    def __is_ready__(self) -> bool:
        """Returns whether the warm-up is over, for ``/readyz``."""
        return models.ready


# Around everything, including BentoML's own routes: those that are not public need the token.
for layer, _, options in app.user_middleware:
    Pocketnets.add_asgi_middleware(layer, **options)  # type: ignore[attr-defined]
