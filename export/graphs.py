"""Makes the ONNX graphs of one network: for each scheme, the first that passes the gates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from artifact.answering import Sets
from artifact.artifact import Artifact
from artifact.formats import Scheme
from artifact.gates import GateError, check_gates, limits_for
from artifact.records import Limits, Logits, Precision, Rewrite, TensorSpec, WeightBits
from artifact.runtimes.base import RuntimeUnavailable
from core.preprocess import Pixels
from export.foreign_graph import count_constants
from export.free_batch import shape_nodes
from export.network import Network
from export.prover import Prover
from export.quantization.fp16 import fp16_candidates
from export.quantization.int8 import int8_candidates
from export.quantization.learned import learned_candidate
from export.quantization.sensitivity import GraphCandidate
from export.rewrites.channel_blocks import fill_blocks
from export.rewrites.channel_shuffle import fold_shuffles
from export.rewrites.pixel_order import normalise_before_transpose
from export.to_onnx import INPUT, OUTPUT, to_onnx
from models.classifier import Classifier
from models.cost import NetworkCost, count_parameters, network_cost
from models.inference_form import inference_form
from training.data import pixel_batches


class Proven(NamedTuple):
    """A graph that passed its gates on a CPU."""

    graph: bytes  # serialized ModelProto
    artifact: Artifact  # its manifest, without the files
    golden: Logits  # logits of the golden batch


class Graphs:
    """Makes and verifies graphs on first use."""

    def __init__(
        self,
        network: Network,
        *,
        max_batch: int,
        max_drop: float | None,
        weight_bits: WeightBits,
    ) -> None:
        self._network = network
        self._max_batch = max_batch
        self._max_drop = max_drop
        self._weight_bits = weight_bits
        self._found: dict[Scheme, Proven | Exception] = {}

    def proven(self, scheme: Scheme) -> Proven:
        """Returns the first graph of a scheme that passes its gates.

        Raises:
            GateError: none does; the message names the gate that the last one missed.
            Exception: any other failure; later calls raise it again.
        """
        if scheme not in self._found:
            self._found[scheme] = _tried(lambda: self._find(scheme))
        found: Proven = _given(self._found[scheme])
        return found

    def _find(self, scheme: Scheme) -> Proven:
        missed = GateError(f"no {scheme} graph could be made")
        for candidate in self._candidates(scheme):
            graph = candidate.model.SerializeToString()
            with TemporaryDirectory() as folder:
                draft = self._draft(Path(folder), scheme, candidate)
                draft.graph_file.write_bytes(graph)
                try:
                    artifact, golden = self.prover.prove(draft)
                    check_gates(artifact.gates)
                except (GateError, RuntimeUnavailable) as error:
                    missed = GateError(str(error))
                else:
                    return Proven(graph, artifact, golden)
        raise missed

    def _candidates(self, scheme: Scheme) -> Iterable[GraphCandidate]:
        if scheme == "fp32":
            return [_for_a_cpu(self._float32)]
        pixels, labels = self._calibration
        if scheme == "fp16":
            limits = self.limits("fp16")
            return fp16_candidates(self._fp32, pixels, limits, self._network.answering)
        limits, symmetric = self.limits("int8"), scheme == "int8-symmetric"
        bits = None if symmetric else self._weight_bits
        if self._network.learned is not None and not symmetric:
            return [learned_candidate(self._network.learned, self._fp32, pixels, labels, bits)]
        return int8_candidates(
            self._fp32,
            pixels,
            labels,
            limits,
            symmetric=symmetric,
            weight_bits=bits,
            answering=self._network.answering,
        )

    def _draft(self, folder: Path, scheme: Scheme, candidate: GraphCandidate) -> Artifact:
        network = self._network
        precision: Precision = "int8" if scheme == "int8-symmetric" else scheme
        return Artifact(
            path=folder,
            model=network.model,
            data=network.data,
            weights=network.weights,
            precision=precision,
            format="onnx",
            labels=network.labels,
            preprocess=network.preprocess,
            input=TensorSpec(name=INPUT, dtype="uint8", shape=("batch", *network.preprocess.shape)),
            output=TensorSpec(name=OUTPUT, dtype="float32", shape=("batch", len(network.labels))),
            batch_range=(1, self._max_batch),
            macs=self._cost.macs,
            parameters=self._cost.parameters,
            shape_nodes=shape_nodes(candidate.model),
            limits=self.limits(precision),
            parity=None,
            metrics=None,
            unverified=None,
            source=network.source,
            task=network.answering.task,
            thresholds=network.answering.thresholds,
            abstention=network.abstention,
            fp32_layers=candidate.fp32_layers,
            quantization=candidate.quantization,
            rewrites={**self._float32.rewrites, **candidate.rewrites},
            versions={},
            sha256s={},
        )

    def limits(self, precision: Precision) -> Limits:
        """Returns the limits of artifacts of a precision."""
        return limits_for(
            precision,
            weights=self._network.weights,
            labelled=self._network.labelled,
            max_drop=self._max_drop,
            task=self._network.answering.task,
        )

    @cached_property
    def prover(self) -> Prover:
        """Returns the prover for these graphs and the artifacts built from them."""
        return Prover(self._network, max_batch=self._max_batch, macs=self._cost.macs)

    @property
    def _fp32(self) -> Any:
        """Returns the float32 ``ModelProto``."""
        return self._float32.model

    @property
    def _float32(self) -> GraphCandidate:
        """Returns that graph, and how it was rewritten."""
        made: GraphCandidate = _given(self._exported)
        return made

    @cached_property
    def _exported(self) -> Any:
        """Returns that graph or its exception, so that a failure is not repeated per scheme."""
        return _tried(self._export)

    def _export(self) -> GraphCandidate:
        if self._network.graph is not None:
            model = copy.deepcopy(self._network.graph)
        else:
            model = to_onnx(self._module, size=self._network.preprocess.crop)
        folded = fold_shuffles(model)
        return GraphCandidate(model, rewrites={"channel_shuffle": folded} if folded else {})

    @cached_property
    def _module(self) -> Classifier:
        """Returns the module to export; verification compares it with the trained network."""
        module = self._network.module
        assert isinstance(module, Classifier)
        return inference_form(module)

    @cached_property
    def _cost(self) -> NetworkCost:
        """Returns the cost of the float32 graph; MACs are the same in every precision."""
        given = self._network.graph
        count = count_constants(given) if given is not None else count_parameters(self._module)
        return network_cost(self._fp32, parameters=count)

    @cached_property
    def _calibration(self) -> tuple[Pixels, Sets | None]:
        """Returns uint8 pixels (n, H, W, 3), and bool (n, C), their labels, if known."""
        network = self._network
        samples = network.calibration
        batches = pixel_batches(
            samples,
            network.preprocess,
            size=len(samples),
            truncated=network.truncated,
        )
        pixels, labels = next(batches)
        return pixels, network.targets(labels) if network.labelled else None


def _for_a_cpu(candidate: GraphCandidate) -> GraphCandidate:
    """Returns a float32 graph with rewrites that other precisions do not share.

    Its MACs are no longer the network's: a CPU computes float32 alone in blocks of channels, int8
    has channels last.
    """
    model = copy.deepcopy(candidate.model)
    made: dict[Rewrite, int] = {
        "channel_blocks": fill_blocks(model),
        "pixel_order": normalise_before_transpose(model),
    }
    counts = {name: count for name, count in made.items() if count}
    return candidate._replace(model=model, rewrites={**candidate.rewrites, **counts})


def _tried(make: Callable[[], Any]) -> Any:
    """Returns the result of ``make`` or the exception it raises, for :func:`_given` to raise."""
    try:
        return make()
    except Exception as error:
        return error


def _given(made: Any) -> Any:
    if isinstance(made, Exception):
        raise made
    return made
