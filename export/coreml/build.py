"""Builds the .mlpackage of a Core ML artifact."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from artifact.artifact import Artifact
from artifact.formats import CORE_ML_PACKAGE
from artifact.runtimes.coreml_mac import import_coremltools
from core.image_size import in_full
from export.class_names import distinct
from export.coreml.operators import HANDLERS
from export.coreml.program import Translator
from export.image_words import resizing_in_words
from export.one_image import Unconvertible, for_one_image

_SHARES = "probabilities"  # the softmax in the program, or of several labels the sigmoid
LABEL, LABEL_SHARES = "classLabel", "classLabel_probs"  # by coremltools, outputs of a classifier
_COLOURS = {1: "GRAYSCALE", 3: "RGB"}  # by the number of channels


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with its .mlpackage in its folder.

    Args:
        draft: the artifact; where an int8 one computes with floats, these are float16.
        graph: serialized ``ModelProto``, in float16 or in QDQ form.
        batches: sizes to optimise for. An input that is an image takes one, and a batch is many
            inputs, so none of them needs a program of its own.

    Raises:
        Unconvertible: Core ML has no form of a node of the graph, or of its input.
    """
    ct = import_coremltools()
    model = for_one_image(onnx.load_from_string(graph), "coreml")
    height, width, channels = draft.preprocess.shape
    if channels not in _COLOURS:
        raise Unconvertible(f"coreml: its images have 1 or 3 channels, and these have {channels}")
    layout, shape = ct.colorlayout[_COLOURS[channels]], (1, channels, height, width)
    several = draft.task == "multi"
    classes = None if several else ct.ClassifierConfig(distinct(draft.labels), LABEL, _SHARES)
    translator = Translator(model, half=draft.precision == "int8")
    with (
        TemporaryDirectory() as folder,
        redirect_stderr(StringIO()),  # progress bars
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of a temporary folder that it leaves to be collected
        package = ct.convert(
            _program(translator, draft, shape),
            inputs=[ct.ImageType(draft.input.name, shape, color_layout=layout)],
            classifier_config=classes,
            minimum_deployment_target=ct.target.iOS17,
            # As it is: a pass that joins operators takes float32 for granted, and fails.
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            package_dir=f"{folder}/{CORE_ML_PACKAGE}",
        )
        _describe(package, draft)
        package.save(str(draft.path / CORE_ML_PACKAGE))
    return draft


def _program(translator: Translator, draft: Artifact, shape: tuple[int, ...]) -> Any:
    """Returns the program, float32 image (1, C, H, W) to logits and their softmax.

    Of several labels, it is the sigmoid of each.
    """
    import coremltools as ct
    from coremltools.converters.mil.mil import Function, Program

    mb, program = translator.mb, Program()
    name = draft.input.name
    with Function({name: mb.placeholder(shape)}, opset_version=ct.target.iOS17) as function:
        logits = translator.translate(function.inputs[name], HANDLERS)
        several = draft.task == "multi"
        shares = mb.sigmoid(x=logits, name=_SHARES) if several else None
        function.set_outputs([logits, shares or mb.softmax(x=logits, axis=-1, name=_SHARES)])
    program.add_function("main", function)
    return program


def _describe(package: Any, draft: Artifact) -> None:
    """Writes what Xcode shows of a model, and what the manifest says for an app to read."""
    preprocess = draft.preprocess
    package.author = "Pocketnets"
    package.version = draft.versions["pocketnets"]
    package.user_defined_metadata.update(
        {
            name: " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in asdict(preprocess).items()
        }
    )
    package.short_description = (
        f"{draft.model}-{draft.data}: classifies images of {in_full(preprocess.crop)} "
        f"pixels into {len(draft.labels)} classes ({draft.source.origin})."
    )
    package.input_description[draft.input.name] = (
        f"{preprocess.mode}. {resizing_in_words(preprocess)} It is normalised inside."
    )
    package.output_description[draft.output.name] = (
        "A logit for each class, in the order of labels."
    )
    if draft.task == "multi":
        package.user_defined_metadata["labels"] = json.dumps(draft.labels, ensure_ascii=False)
        package.user_defined_metadata["thresholds"] = json.dumps(draft.thresholds)
        package.output_description[_SHARES] = (
            "The sigmoid of each logit, in the order of labels: they do not sum to 1. An image has "
            "the labels above their thresholds."
        )
        return
    package.output_description[LABEL] = "The most likely class."
    package.output_description[LABEL_SHARES] = "The softmax of the logits, by class."
