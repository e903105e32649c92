"""Predicts the latency of a network from its layers, without timing one of its family.

A layer takes its roofline's estimate (:class:`bench.layers.roofline.Bound`, all of its terms added
up) times a factor that boosted trees learn from the layers of other networks: from its kind and
operator, the bytes it reads and writes, its weights, its multiply-accumulates for each byte
written, and what its estimate is made of. The layers of a network add up, and what a call takes
over its layers is a factor learned from the same networks. Each batch size has a model of its own.

What is known of the network: which kernels ONNX Runtime made of it, from one call, and no time.

Tried on twelve networks at 64 px, and left: non-negative least squares for each kind of layer, and
trees that predict seconds without the roofline; both erred by about half as much again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.layers.roofline import Roof
from core.errors import UserError
from models.registry import find_model

Floats = npt.NDArray[np.float64]

MIN_FAMILIES = 3  # with two, one network would speak for all others
_LEAST = 1e-7  # seconds; the profiler counts microseconds, of which some dozen are averaged
_BASE_WEIGHT = 1e-3  # of a layer, beside its share of its network's time
_TREES: dict[str, Any] = {
    "max_iter": 100,
    "learning_rate": 0.15,
    "min_samples_leaf": 10,
    "early_stopping": False,
    "random_state": 0,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A network, predicted by a model that saw none of its family.

    Attributes:
        roof: the network, with what was measured.
        layers: predicted seconds of each layer.
        seconds: of a call.
        line: seconds of a call by a line through the MACs of the same other networks, in the same
            precision and batch: a constant and a rate, neither negative.
        rate: likewise, by a rate alone.
    """

    roof: Roof
    layers: tuple[float, ...]
    seconds: float
    line: float
    rate: float

    @property
    def measured(self) -> float:
        """Returns the p50 of whole calls."""
        return self.roof.times.call.p50


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How far predictions are off, as fractions of what was measured.

    Attributes:
        count: predictions.
        median: median of the absolute errors.
        within10: share of predictions that are off by at most 10 %.
        within20: likewise, 20 %.
    """

    count: int
    median: float
    within10: float
    within20: float


def score(predictions: Sequence[Prediction], predicted: Callable[[Prediction], float]) -> Score:
    """Returns how far ``predicted`` is off over all ``predictions``, of which there is one."""
    errors = [abs(predicted(one) / one.measured - 1) for one in predictions]
    return Score(
        count=len(errors),
        median=median(errors),
        within10=sum(error <= 0.1 for error in errors) / len(errors),
        within20=sum(error <= 0.2 for error in errors) / len(errors),
    )


def family(model: str) -> str | None:
    """Returns the family of a network; None where the registry does not know it."""
    try:
        return find_model(model).family
    except UserError:
        return None


def check_families(families: Iterable[str | None]) -> None:
    """Returns None where ``families``, of networks, are enough to predict one from the others.

    Raises:
        UserError: fewer than three; None is no family.
    """
    names = sorted({name for name in families if name})
    if len(names) < MIN_FAMILIES:
        raise UserError(
            f"there are networks of {len(names)} families ({', '.join(names) or 'none'}): to "
            f"predict one from the others takes at least {MIN_FAMILIES}; make more with: make "
            "export"
        )


def leave_family_out(roofs: Sequence[Roof], families: Mapping[str, str]) -> list[Prediction]:
    """Returns a prediction of each of ``roofs``, in their order, from those of other families.

    Args:
        roofs: networks as measured, at any precisions and batch sizes.
        families: of each network, by its registry name.

    Raises:
        UserError: fewer than three families.
    """
    names = sorted({families[roof.times.model] for roof in roofs})
    check_families(names)
    found: dict[int, Prediction] = {}
    for name in names:
        others = [roof for roof in roofs if families[roof.times.model] != name]
        models: dict[int, LatencyModel] = {}
        for index, roof in enumerate(roofs):
            if families[roof.times.model] == name:
                batch = roof.times.batch
                if batch not in models:
                    same = [other for other in others if other.times.batch == batch]
                    models[batch] = LatencyModel(same or others)
                found[index] = models[batch].predict(roof)
    return [found[index] for index in range(len(roofs))]


class LatencyModel:
    """Predicts what networks take, from the layers of those it is made of."""

    def __init__(self, roofs: Sequence[Roof]) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        layers = [layer for roof in roofs for layer in roof.times.layers]
        self._kinds = sorted({layer.kind for layer in layers})
        self._ops = sorted({layer.op for layer in layers})
        seconds = np.array([max(layer.seconds, _LEAST) for layer in layers])
        weights: list[float] = []
        for roof in roofs:
            whole = roof.times.seconds
            weights += [_BASE_WEIGHT + layer.seconds / whole for layer in roof.times.layers]
        estimates = np.concatenate([_estimates(roof) for roof in roofs])
        self._trees = HistGradientBoostingRegressor(**_TREES)
        features = np.concatenate([self._features(roof) for roof in roofs])
        # Small trees: where cores are busy, threads wait for each other for longer than they work.
        with threadpool_limits(limits=1):
            self._trees.fit(features, np.log(seconds / estimates), sample_weight=weights)
        self._roofs = tuple(roofs)

    def predict(self, roof: Roof) -> Prediction:
        """Returns what ``roof`` takes; no time in it is looked at."""
        layers = _estimates(roof) * np.exp(self._trees.predict(self._features(roof)))
        peers = [one for one in self._roofs if one.setting == roof.setting]
        over = median(peer.times.call.p50 / peer.times.seconds for peer in peers or self._roofs)
        return Prediction(
            roof=roof,
            layers=tuple(layers.tolist()),
            seconds=float(layers.sum()) * over,
            line=_by_macs(peers or self._roofs, roof.times.macs, constant=True),
            rate=_by_macs(peers or self._roofs, roof.times.macs, constant=False),
        )

    def _features(self, roof: Roof) -> Floats:
        """Returns a row for each layer; no kind and no operator for one that was never seen."""
        kinds = np.array([layer.kind for layer in roof.times.layers])
        ops = np.array([layer.op for layer in roof.times.layers])
        columns = [kinds == kind for kind in self._kinds] + [ops == op for op in self._ops]
        return np.column_stack([_numbers(roof), *columns])


def _numbers(roof: Roof) -> Floats:
    estimates = _estimates(roof)
    terms = [(bound.compute, bound.activations, bound.weights) for bound in roof.bounds]
    sizes = [
        (layer.read, layer.written, layer.weights, layer.macs / max(layer.written, 1))
        for layer in roof.times.layers
    ]
    integers = [layer.precision == "int8" for layer in roof.times.layers]
    return np.column_stack(
        [np.log(estimates), np.array(terms) / estimates[:, None], np.log1p(sizes), integers]
    )


def _estimates(roof: Roof) -> Floats:
    """Returns the seconds of each layer if nothing in it took place at the same time."""
    sums = [bound.compute + bound.memory + bound.launch for bound in roof.bounds]
    return np.maximum(sums, _LEAST)


def _by_macs(roofs: Sequence[Roof], macs: int, *, constant: bool) -> float:
    """Returns the seconds of ``macs`` by least squares of relative errors over ``roofs``."""
    from scipy.optimize import nnls

    p50 = np.array([roof.times.call.p50 for roof in roofs])
    columns = np.array([[roof.times.macs / 1e6, float(constant)] for roof in roofs])
    found, _ = nnls(columns / p50[:, None], np.ones(len(roofs)))
    return float(found @ [macs / 1e6, float(constant)])
