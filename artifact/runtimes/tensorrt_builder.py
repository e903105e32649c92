"""Builds TensorRT engines from ONNX graphs, for both flavours.

TensorRT 11 and TensorRT for RTX have no FP16 flag: networks are strongly typed, so a float16 graph
gives a float16 engine. TensorRT for RTX needs no GPU to build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from artifact.artifact import Artifact
from artifact.records import Fingerprint
from artifact.runtimes.tensorrt_flavours import (
    aim,
    create,
    find_target,
    import_flavour,
    make_logger,
    network_flags,
)
from artifact.validation import check_files
from core.errors import UserError

Profile = tuple[int, int, int]


def build_engine(
    graph: bytes,
    name: str,
    *,
    batch_range: tuple[int, int],
    batches: Sequence[int] = (),
) -> tuple[bytes, Fingerprint]:
    """Returns a serialized engine for a typed ONNX graph with a free batch dimension.

    Args:
        graph: serialized ``ModelProto``, uint8 ("batch", H, W, 3) in.
        name: flavour. ``tensorrt_rtx`` builds for every GPU generation it supports, ``tensorrt``
            for the GPU of this machine.
        batch_range: smallest and largest batch size; kernels are optimised for their geometric
            mean.
        batches: batch sizes that get their own optimization profile.

    Raises:
        RuntimeUnavailable: the flavour is not installed, or needs a GPU and there is none.
        UserError: TensorRT rejects the graph; its own messages are in the error.
    """
    target = find_target(name)
    trt = import_flavour(name)
    logger = make_logger(trt)

    def need(made: Any, otherwise: str) -> Any:
        """Returns ``made``; raises UserError if it is None or False, which mean failure."""
        if made is None or made is False:
            raise UserError(f"{name} {otherwise}: {logger.reason()}")
        return made

    builder = need(create(trt.Builder, logger), "cannot start a builder")
    network = need(builder.create_network(network_flags(trt)), "cannot start a network")
    parser = need(create(trt.OnnxParser, network, logger), "cannot start a parser")
    need(parser.parse(graph), "cannot parse the graph")
    config = need(builder.create_builder_config(), "cannot start a configuration")
    need(aim(name, trt, config), f"does not build for {', '.join(target.capabilities)}")
    profiles = profiles_for(batch_range, batches)
    pixels = network.get_input(0)
    for sizes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(pixels.name, *((size, *tuple(pixels.shape)[1:]) for size in sizes))
        added = config.add_optimization_profile(profile) >= 0  # its index, or -1
        need(added, f"refuses the batch sizes {sizes[0]} to {sizes[-1]}")
    engine = need(builder.build_serialized_network(network, config), "cannot build an engine")
    return bytes(engine), Fingerprint(
        version=trt.__version__,
        capabilities=target.capabilities,
        driver=target.driver,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        profiles=profiles,
    )


def build(draft: Artifact, graph: bytes, batches: Sequence[int]) -> Artifact:
    """Returns ``draft`` with an engine of ``graph`` in its folder; see :func:`build_engine`."""
    engine, fingerprint = build_engine(
        graph, draft.format, batch_range=draft.batch_range, batches=batches
    )
    draft.model_file.write_bytes(engine)
    return replace(draft, fingerprint=fingerprint)


def rebuild_engine(artifact: Artifact) -> tuple[bytes, Fingerprint]:
    """Builds an engine again from the graph of an artifact, with the same profiles.

    The artifact's folder is not changed.

    Raises:
        ArtifactError: a file of the folder does not match the manifest.
        RuntimeUnavailable, UserError: as :func:`build_engine`.
    """
    if artifact.fingerprint is None:
        raise UserError(f"{artifact.path}: {artifact.name} is a graph, it has no engine to rebuild")
    check_files(artifact.path, artifact, set(artifact.sha256s))
    return build_engine(
        artifact.graph_file.read_bytes(),
        artifact.format,
        batch_range=artifact.batch_range,
        batches=[smallest for smallest, *_ in artifact.fingerprint.profiles[1:]],
    )


def profiles_for(batch_range: tuple[int, int], batches: Sequence[int]) -> tuple[Profile, ...]:
    """Returns (smallest, optimal, largest) batch of the dynamic profile, then of each fixed one."""
    smallest, largest = batch_range
    typical = max(smallest, int((smallest * largest) ** 0.5))
    static = [(batch, batch, batch) for batch in sorted(set(batches))]
    return ((smallest, typical, largest), *static)
