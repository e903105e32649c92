"""A service as in LitServe's first example, with the same responses as the other services.

``python -m bench.studies.plain_litserve``, with artifact and port in environment variables.
"""

import os
from typing import Any

import litserve
from fastapi import Request
from PIL import Image

from bench.studies.plain import PORT, Classifier
from core.cores import usable_cores


class Plain(litserve.LitAPI):
    """Classifies images: POST one to /predict, as the form field ``image``."""

    def setup(self, device: str) -> None:
        """Loads the artifact; called in each worker."""
        self.classifier = Classifier()

    def decode_request(self, request: Request) -> Image.Image:
        """Returns the image of a form; ``request`` maps its fields."""
        return Image.open(request["image"].file)

    def predict(self, x: Image.Image) -> dict[str, Any]:
        """Returns the labels of an image with the highest scores."""
        return self.classifier(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Returns ``output``, which is ready for JSON."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Plain(), accelerator="cpu", workers_per_device=usable_cores())
    server.run(host="127.0.0.1", port=int(os.environ[PORT]), generate_client_file=False)
