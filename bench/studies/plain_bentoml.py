"""A service as in BentoML's quickstart: a typed endpoint with a PIL image.

``bentoml serve bench.studies.plain_bentoml:Plain``, with the artifact in an environment variable.
"""

from typing import Any

import bentoml
from PIL import Image

from bench.studies.plain import Classifier
from core.cores import usable_cores


@bentoml.service(workers=usable_cores())
class Plain:
    """Classifies images: POST one to /predict, as the form field ``image``."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api
    def predict(self, image: Image.Image) -> dict[str, Any]:
        """Returns the labels of ``image`` with the highest scores."""
        return self.classifier(image)
