"""A model on trial: a canary, which answers a share of the requests, or a shadow, which none sees.

Both concern the paths that name no model.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from serving.answers import Found
from serving.errors import Refusal
from serving.metrics import MIRRORED
from serving.predictor import Upload
from serving.served import Served

STICKY = b"x-client-id"  # whoever sends it is answered by the same model every time
_SILENCE_S = 60  # between two lines about failures of a shadow, which may fail for every image
_log = logging.getLogger(__name__)


class Canary:
    """A model that answers a share of the requests.

    Attributes:
        served: the model.
        share: in (0, 1].
    """

    def __init__(self, served: Served, share: float) -> None:
        self.served = served
        self.share = share

    def answers(self, request: Request) -> bool:
        """Returns whether this request is among its share.

        Of requests with the header ``X-Client-Id``, its value decides: a client stays with its
        model, in every worker, and goes on with the canary when the share rises.
        """
        headers: Mapping[bytes, bytes] = dict(request.scope["headers"])
        client = headers.get(STICKY)
        if client is None:
            return random.random() < self.share
        digest = hashlib.blake2b(client, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64


class Shadow:
    """A model that is asked for a share of the images, too, once they are answered.

    Its images wait in a queue of their own, from which a thread takes only if no answer is waited
    for, and beyond a few they are dropped: overload drops shadows first.

    Attributes:
        served: the model.
        share: in (0, 1].
    """

    def __init__(self, served: Served, share: float) -> None:
        self.served = served
        self.share = share
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_s = -math.inf
        self._untold = 0  # failures since then

    def offer(self, by: Served, images: Sequence[bytes | str], found: Sequence[Any]) -> None:
        """Takes images that ``by`` has answered; returns at once."""
        if by is self.served:
            return
        for image, result in zip(images, found, strict=True):
            if isinstance(result, Refusal) or random.random() >= self.share:
                continue
            names = (*by.entry.key, *self.served.entry.key)
            try:
                (answer,) = self.served.predictor.mirror([Upload(image, 1, shadow=True)])
            except Refusal:
                MIRRORED.labels(*names, "dropped").inc()
                continue
            self.served.mirrored += 1
            task = asyncio.create_task(self._compare(answer, result, names))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Waits until all images that were taken are compared."""
        await asyncio.gather(*self._tasks)

    async def _compare(
        self, answer: asyncio.Future[Any], result: Found, names: tuple[str, ...]
    ) -> None:
        try:
            found = await answer
            agrees = found["predictions"][0]["label"] == result["predictions"][0]["label"]
            outcome = "agrees" if agrees else "differs"
        except Refusal:  # it refuses what the other accepts
            outcome = "differs"
        except Exception:
            self._tell()
            outcome = "failed"
        finally:
            self.served.mirrored -= 1
        MIRRORED.labels(*names, outcome).inc()

    def _tell(self) -> None:
        """Logs the exception that is handled, unless another one was a moment ago."""
        self._untold += 1
        if time.monotonic() - self._told_s < _SILENCE_S:
            return
        self._told_s = time.monotonic()
        _log.exception(
            "the shadow %s failed (images since the last line: %d)",
            self.served.entry.reference,
            self._untold,
        )
        self._untold = 0
