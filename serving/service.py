"""The BentoML service: ``bentoml serve serving.service:Pocketnets``.

The artifact is loaded and checked when this module is imported, and the golden batch reproduced
before the first worker starts: a worker that fails to start would be started again for ever.
"""

from __future__ import annotations

import bentoml
from bentoml.exceptions import BentoMLException

from models.errors import UserError
from serving.app import create_app
from serving.predictor import Predictor, open_artifact, open_runtime
from serving.settings import Settings


class ServiceError(UserError, BentoMLException):
    """The service does not start. BentoML prints its own exceptions on one line."""


def _open() -> Predictor:
    try:
        settings = Settings.from_environment()
        return Predictor(settings, open_artifact(settings))
    except UserError as error:
        raise ServiceError(str(error)) from None


def _reproduce() -> None:
    """Raises ServiceError unless the golden batch is reproduced; runs before any worker."""
    try:
        with open_runtime(predictor.settings, predictor.artifact):
            pass
    except UserError as error:
        raise ServiceError(str(error)) from None


predictor = _open()


@bentoml.service(
    name="pocketnets",
    workers=1,  # its threads fill the cores
    http={"host": predictor.settings.host, "port": predictor.settings.port},
    # A span and a log line for each request cost more than everything else BentoML does for it.
    tracing={"excluded_urls": "predict"},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(create_app(predictor), path="/")
class Pocketnets:
    """Classifies images: POST one to /predict."""

    check = bentoml.on_deployment(_reproduce)

    def __is_ready__(self) -> bool:
        """Returns whether the warm-up is over; ``/readyz`` asks."""
        return predictor.ready
