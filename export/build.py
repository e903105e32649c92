"""Builds the artifacts of one network; each is verified before it appears."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from artifact.artifact import ARTIFACTS, Artifact, write_artifact
from artifact.fingerprint import EngineMismatch
from artifact.formats import FormatSpec, artifact_names, default_names, group_names, split_name
from artifact.gates import GateError, check_gates
from artifact.records import WeightBits
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable
from artifact.runtimes.tensorrt_builder import profiles_for
from artifact.siblings import outdated_thresholds
from artifact.validation import MAX_BATCH, ArtifactError
from core import cli
from core.errors import UserError, closest, in_words, is_of_library, storage_error
from core.files import staged
from core.lazy import resolve
from core.version import own_version

if TYPE_CHECKING:
    from export.network import Network

DEFAULT_TARGETS = tuple(default_names())
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_GRAPH_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How artifacts are built.

    Attributes:
        max_batch: largest batch size.
        max_drop: largest loss of top-1 against torch, in [0, 1]; None for the default of the
            precision.
        weight_bits: bits of int8 weights; 8 are for CPUs that add in 32 bits.
        batches: batch sizes for which an engine gets a static profile, besides the dynamic one:
            dynamic shapes cost latency.
        resume: keep existing artifacts made from the same weights, with the same options, by the
            same versions.
        license: identifier of their licence for the model card, such as ``apache-2.0``.
    """

    max_batch: int = 32
    max_drop: float | None = None
    weight_bits: WeightBits = 7
    batches: tuple[int, ...] = ()
    resume: bool = False
    license: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise UserError(f"max_batch is {self.max_batch}: it must lie in 1..{MAX_BATCH}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise UserError(f"max_drop is {100 * self.max_drop:g} points: it must lie in 0..100")
        if self.license is not None and not _LICENSE.fullmatch(self.license):
            raise UserError(
                f"license is {self.license!r}: it must be an identifier such as apache-2.0, mit, "
                "cc-by-4.0 or other"
            )
        for batch in self.batches:
            if not 1 <= batch <= self.max_batch:
                raise UserError(
                    f"batches are {list(self.batches)}: each must lie in 1..{self.max_batch}, "
                    "the largest batch"
                )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one target: an artifact, or the reason why there is none.

    ``failed`` is true if it missed a limit or its graph was rejected, and false if this machine
    cannot build it; ``kept`` is true if it existed already.
    """

    target: str
    artifact: Artifact | None = None
    reason: str | None = None
    failed: bool = False
    kept: bool = False


def targets_of(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the targets that ``names`` select, each once; a group selects its members.

    Raises:
        UserError: a name is neither a known ``<format>-<precision>`` nor a group.
    """
    groups = group_names()
    known = [*artifact_names(), *groups]
    for name in names:
        if name not in known:
            raise UserError(f"unknown format {name!r}: {closest(name, known, listed=True)}")
    return tuple(dict.fromkeys(each for name in names for each in groups.get(name, [name])))


def build_artifacts(
    network: Network,
    targets: Sequence[str] = DEFAULT_TARGETS,
    options: Options | None = None,
) -> Iterator[Outcome]:
    """Yields the outcome of each target as it is done.

    Artifacts appear atomically in ``artifacts/<model>-<data>/<target>/``. If one misses a limit, an
    earlier one of the same name is deleted too, as it would be of other weights. An exception of a
    library becomes the reason of that target, and the other targets are still built.
    """
    targets = targets_of(targets)
    builder = _Builder(network, options or Options())
    folder = ARTIFACTS / f"{network.model}-{network.data}"
    made: Artifact | None = None
    for target in targets:
        path = folder / target
        try:
            if builder.options.resume and (standing := builder.standing(path)):
                yield Outcome(target, standing, kept=True)
                continue
            with staged(path) as new:
                artifact = builder.build(target, new)
            made = replace(artifact, path=path)
            yield Outcome(target, made)
        except RuntimeUnavailable as error:
            yield Outcome(target, reason=str(error))
        except UserError as error:
            if isinstance(error, GateError):
                shutil.rmtree(path, ignore_errors=True)
            yield Outcome(target, reason=str(error), failed=True)
        except Exception as error:  # torch, onnx, ONNX Runtime, TensorRT: no common base class
            if storage_error(error) or not is_of_library(error):
                raise  # a full disk affects all targets
            yield Outcome(target, reason=in_words(error), failed=True)
    if made and (outdated := outdated_thresholds(made)):
        cli.notes().print(f"warning: {outdated}", soft_wrap=True, markup=False, highlight=False)
    with suppress(OSError):  # it holds something
        folder.rmdir()


class _Builder:
    def __init__(self, network: Network, options: Options) -> None:
        from export.graphs import Graphs  # imports torch

        self.options = options
        self._network = network
        self._graphs = Graphs(
            network,
            max_batch=options.max_batch,
            max_drop=options.max_drop,
            weight_bits=options.weight_bits,
        )

    def standing(self, path: Path) -> Artifact | None:
        """Returns the artifact at ``path`` if it is up to date; None otherwise."""
        try:
            old = Artifact.load(path)
        except ArtifactError:
            return None
        batch_range = (1, self.options.max_batch)
        limits, network = self._graphs.limits(old.precision), self._network
        is_ = (old.source, old.preprocess, old.limits, old.batch_range, old.versions)
        new = (network.source, network.preprocess, limits, batch_range, _versions(old.spec))
        same = is_ == new
        if old.quantization and old.spec.schemes[old.precision] == "int8":
            same = same and old.quantization.weight_bits == self.options.weight_bits
        if old.fingerprint:
            profiles = profiles_for(batch_range, self.options.batches)
            same = same and old.fingerprint.profiles == profiles
        return old if same else None

    def build(self, target: str, folder: Path) -> Artifact:
        """Builds and verifies the artifact ``target`` in ``folder``, and returns it."""
        from export.card.write import write_card

        spec, precision = split_name(target)
        if spec.require:  # checked first, as making the graphs takes long
            resolve(spec.require)(spec.name)
        graph, artifact, golden = self._graphs.proven(spec.schemes[precision])
        draft = replace(
            artifact,
            path=folder,
            format=spec.name,
            precision=precision,
            limits=self._graphs.limits(precision),
            versions=_versions(spec),
        )
        draft.graph_file.write_bytes(graph)
        if spec.build:
            draft = replace(draft, parity=None, metrics=None)  # not measured yet
            draft = resolve(spec.build)(draft, graph, self.options.batches)
            try:
                draft, golden = self._graphs.prover.prove(draft)
            except EngineMismatch as error:  # TensorRT for RTX does not support this GPU
                draft = replace(draft, unverified=error.wrong)
            except RuntimeUnavailable as error:
                draft = replace(draft, unverified=str(error))
            check_gates(draft.gates)
        artifact = write_artifact(draft, self._graphs.prover.golden_pixels, golden)
        write_card(artifact, self._network.run, self.options.license)
        return artifact


def _versions(spec: FormatSpec) -> dict[str, str]:
    """Returns the versions of the packages that make graphs, and of those in ``spec``.

    Raises:
        RuntimeUnavailable: a package of ``spec`` is not installed.
    """
    versions = {"pocketnets": own_version()}
    versions |= {package: version(package) for package in _GRAPH_PACKAGES}
    try:
        return versions | {package: version(package) for package in spec.packages}
    except PackageNotFoundError as error:
        install = RUNTIMES[spec.proving_runtime].install
        raise RuntimeUnavailable(f"{spec.name}: {error.name} is not installed; {install}") from None
