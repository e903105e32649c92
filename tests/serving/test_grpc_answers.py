"""Answers of several labels, and of models that may be unsure, over gRPC: as over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_client import Client

from artifact.records import Abstention, Metrics

Encoded = Callable[..., bytes]
MakeArtifact = Callable[..., Path]

MODEL = "made"  # the folder of make_artifact
METRICS = Metrics(
    top1=0.5, torch_top1=0.5, images=4, runtime="ort-cpu", mean_ap=0.75, torch_mean_ap=0.75
)
ABSTENTION = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.5, images=40)
ALL = {"name": "scores", "parameters": {"classification": {"int64_param": 3}}}


async def over_grpc(client: Client, image: bytes, *outputs: Any) -> dict[str, Any]:
    """Returns the tensors of an image, by the names of the outputs."""
    answer = await client.ask(
        "ModelInfer",
        model_name=MODEL,
        inputs=[
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1],
                "contents": {"bytes_contents": [image]},
            }
        ],
        outputs=outputs,
    )
    return {
        each.name: [text.decode() for text in each.contents.bytes_contents]
        if each.datatype == "BYTES"
        else list(each.contents.fp32_contents)
        for each in answer.outputs
    }


async def over_http(client: Client, image: bytes) -> dict[str, Any]:
    """Returns the same, and what ``/predict`` says of the image."""
    url = f"/v2/models/{MODEL}/infer"
    pixels = {"name": "image", "datatype": "BYTES", "shape": [1]}
    head = {"inputs": [{**pixels, "data": [base64.b64encode(image).decode()]}]}
    tensors = (await client.http.post(url, json=head)).json()["outputs"]
    predicted = (await client.http.post("/predict?top_k=3", content=image)).json()
    return {"predicted": predicted} | {each["name"]: each["data"] for each in tensors}


@pytest.mark.parametrize("colour", ["red", "black", "lime"])
def test_scores_of_several_labels_do_not_sum_to_one(
    talk: Callable[..., None], make_artifact: MakeArtifact, encoded: Encoded, colour: str
) -> None:
    path = make_artifact(task="multi", thresholds=(0.9, 0.5, 0.4), metrics=METRICS)

    async def say(client: Client) -> None:
        found = await over_grpc(client, encoded(colour), {"name": "logits"}, {"name": "scores"})
        known = await over_http(client, encoded(colour))
        assert found["logits"] == pytest.approx(known["logits"], abs=1e-6)
        assert found["scores"] == pytest.approx(known["scores"], abs=1e-6)
        sigmoids = 1 / (1 + np.exp(-np.float64(found["logits"])))
        assert found["scores"] == pytest.approx(sigmoids.tolist(), abs=1e-6)
        assert abs(sum(found["scores"]) - 1) > 0.4
        predicted = {each["label"]: each["score"] for each in known["predicted"]["predictions"]}
        classes = (await over_grpc(client, encoded(colour), ALL))["scores"]
        listed = {text.split(":")[2]: float(text.split(":")[0]) for text in classes}
        assert listed == pytest.approx(predicted, abs=1e-6)

    talk(say, artifact=path)


def test_an_unsure_answer_has_the_scores_that_it_is_judged_by(
    talk: Callable[..., None], make_artifact: MakeArtifact, encoded: Encoded
) -> None:
    path = make_artifact(abstention=ABSTENTION)

    async def say(client: Client) -> None:
        for colour, label in (("black", None), ("blue", "blue")):
            known = await over_http(client, encoded(colour))
            assert known["predicted"]["label"] == label
            found = await over_grpc(client, encoded(colour), {"name": "scores"})
            assert found["scores"] == pytest.approx(known["scores"], abs=1e-6)
            assert sum(found["scores"]) == pytest.approx(1, abs=1e-5)
            assert (max(found["scores"]) < ABSTENTION.threshold) == (label is None)

    talk(say, artifact=path, abstain=True)
