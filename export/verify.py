"""An artifact is run on this machine, and its manifest says how it did."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from artifact.artifact import CARD, Artifact, write_artifact, write_manifest
from artifact.gates import Gate, check_gates
from artifact.parity import measure_parity
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from core.files import staged

if TYPE_CHECKING:
    from export.network import Network


@dataclass(frozen=True, slots=True)
class Verified:
    """An artifact that passed its gates on this machine.

    Attributes:
        artifact: as its manifest now says.
        gates: as measured here.
        against: what it was compared with, in words.
    """

    artifact: Artifact
    gates: tuple[Gate, ...]
    against: str


def verify(artifact: Artifact, *, data: str | None = None) -> Verified:
    """Returns ``artifact`` after it passed its gates here; its stamp is completed.

    It is compared with the torch network on real images where the weights and the data are at
    hand, and with its golden batch where they are not, which does not replace what was measured
    against torch before. What does not pass leaves the folder as it was.

    Args:
        artifact: a graph or an engine, stamped or not.
        data: data set or folder of its run; None is the one that the manifest names.

    Raises:
        RuntimeUnavailable: this machine cannot run it.
        GateError: a figure misses its limit.
        UserError: ``data`` is given, and the network that belongs to it is not to be had.
    """
    try:
        network = network_of(artifact, data)
    except (UserError, ImportError) as error:
        if data is not None:
            raise
        measured = _against_golden(artifact)
        against = f"its golden batch (not with torch: {str(error).partition(';')[0]})"
    else:
        from export.prover import Prover

        prover = Prover(network, max_batch=artifact.batch_range[1], macs=artifact.macs)
        measured, _ = prover.prove(artifact, artifact.golden())
        against = f"{network.reference}, {network.source.origin}"
    check_gates(measured.gates)
    assert measured.parity is not None
    if artifact.parity is None or measured.parity.reference != "golden":
        artifact = write_manifest(replace(measured, unverified=None))
    return Verified(artifact, measured.gates, against)


def rebuild(artifact: Artifact, *, data: str | None = None) -> Verified:
    """Returns ``artifact`` with an engine built here from the graph beside it, and verified.

    Args:
        artifact: an engine that was built elsewhere.
        data: as for :func:`verify`, whose errors are raised here, too.

    Raises:
        UserError: it is no engine.
    """
    from artifact.runtimes.tensorrt_builder import rebuild_engine

    engine, fingerprint = rebuild_engine(artifact)
    with staged(artifact.path) as new:  # the old engine stays until the new one has passed
        shutil.copy(artifact.graph_file, new)
        if (card := artifact.path / CARD).exists():
            shutil.copy(card, new)
        (new / artifact.model_file.name).write_bytes(engine)
        rebuilt = replace(
            artifact,
            path=new,
            fingerprint=fingerprint,
            parity=None,
            metrics=None,
            unverified="built again, not run yet",
        )
        verified = verify(write_artifact(rebuilt, *artifact.golden()), data=data)
    return replace(verified, artifact=replace(verified.artifact, path=artifact.path))


def network_of(artifact: Artifact, data: str | None = None) -> Network:
    """Returns the very network that ``artifact`` was made from.

    Args:
        artifact: any artifact.
        data: data set or folder of its run; None for the one that the manifest names.

    Raises:
        UserError: its weights or data are not at hand, or not the same.
    """
    from export.foreign import load_foreign_again
    from export.network import load_network
    from export.rebuild import check_kept

    check_kept(artifact)
    if artifact.source.reading:
        return load_foreign_again(artifact, data)
    weights = "auto" if artifact.weights == "trained" else artifact.weights
    size, channels = artifact.preprocess.crop, artifact.preprocess.channels
    network = load_network(
        artifact.model,
        data or artifact.source.data,
        weights,
        size,
        channels,
        fold=artifact.source.fold,
    )
    made_of = (artifact.source.sha256, artifact.labels, artifact.preprocess)
    if (network.source.sha256, network.labels, network.preprocess) != made_of:
        raise UserError(
            f"the run of {artifact.model} on {network.source.data} is not the one it was made from"
        )
    return network


def _against_golden(artifact: Artifact) -> Artifact:
    pixels, logits = golden = artifact.golden()
    with load_runtime(artifact.spec.proving_runtime, artifact) as runtime:
        parity = measure_parity(
            runtime, artifact, pixels, logits, reference="golden", golden=golden
        )
    return replace(artifact, parity=parity, metrics=None)  # nothing here has a class that is known
