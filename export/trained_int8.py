"""The int8 form of a network that quantization-aware fine-tuning trained."""

from __future__ import annotations

import shlex
from dataclasses import replace

from artifact.records import QatRun
from core.errors import UserError
from core.files import sha256
from export.network import Network
from export.quantization.qdq import LearnedInt8
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.qat.names import SUFFIX
from training.qat.network import QuantizedNetwork
from training.qat.start import weights_sha256


def with_learned(network: Network) -> Network:
    """Returns a network with the int8 form that a run beside its own trained.

    Raises:
        UserError: images have several labels, there is no such run, or it began with other weights
            than these.
    """
    if network.answering.task != "single":
        raise UserError(
            f"--qat: {network.model} on {network.data} gives an image several labels, and int8 is "
            "trained for one class; leave it out"
        )
    data = network.data + SUFFIX
    path = checkpoint_path(run_folder(network.model, data))
    if not path.is_file():
        published = network.weights == "imagenet"
        flags = network.run.options.flags if network.run else ()
        raise UserError(
            f"--qat: {path} is not there; train it: pocketnets train --model {network.model} "
            f"--data {'path/to/photos' if published else network.source.data} --recipe-name "
            f"{shlex.join(('qat_imagenet' if published else 'qat', *flags))}"
        )
    checkpoint = load_checkpoint(path)
    learned = checkpoint.network()
    if checkpoint.qat is None or not isinstance(learned, QuantizedNetwork):
        raise UserError(f"--qat: {path} is no run of quantization-aware fine-tuning")
    if checkpoint.qat["sha256"] != weights_sha256(network.module):
        raise UserError(
            f"--qat: {path} began with other weights than "
            f"{_whose(network)}; train it again with --fresh"
        )
    run = QatRun(checkpoint=str(path), sha256=sha256(path), epochs=len(checkpoint.history))
    return replace(
        network,
        data=data,
        source=replace(network.source, qat=run),
        learned=LearnedInt8(learned.trained(), checkpoint.qat["weight_bits"]),
    )


def _whose(network: Network) -> str:
    if network.weights == "imagenet":
        return "the published ones"
    return f"those of the run on {network.data}"
