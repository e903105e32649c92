"""Predicts the latency of a network from its layers, with a model trained on other families.

The time of a layer is its roofline estimate (the sum of the terms of
:class:`bench.layers.roofline.Bound`) times a factor that gradient-boosted trees predict. Their
features are the layer's kind and operator, its bytes read and written, its weights, its MACs per
byte written, and the terms of the estimate. The latency of a network is the sum over its layers
times a ratio of latency to that sum, learned from the same networks. There is a model for each
batch size.

Of the predicted network only its list of kernels in ONNX Runtime is used, none of its times.
Rejected after tests with twelve networks at 64 px: non-negative least squares for each kind of
layer, and trees without the roofline; their errors were about 1.5 times as large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.layers.roofline import Roof
from core.errors import UserError
from models.registry import find_model

Floats = npt.NDArray[np.float64]

# Fields of a prediction that hold a predicted latency, and what each is predicted from.
By = Literal["seconds", "line", "rate"]
WAYS: dict[By, str] = {
    "seconds": "layers",
    "line": "MACs, constant and rate",
    "rate": "MACs, rate alone",
}
MIN_FAMILIES = 3  # with two, the model would be trained on a single family
_LEAST = 1e-7  # seconds; resolution of the mean of some dozen samples in whole microseconds
_BASE_WEIGHT = 1e-3  # sample weight of a layer, added to its share of its network's time


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The predicted latency of a network, from a model trained on other families.

    Attributes:
        roof: the network, with its measured layers.
        layers: predicted seconds of each layer.
        seconds: predicted latency in seconds.
        line: latency in seconds predicted from MACs alone, by a non-negative constant and rate
            fitted to the same other networks, at the same precision and batch size.
        rate: the same, by a rate without a constant.
    """

    roof: Roof
    layers: tuple[float, ...]
    seconds: float
    line: float
    rate: float

    @property
    def measured(self) -> float:
        """Returns the measured p50 in seconds."""
        return self.roof.times.call_seconds

    def error(self, by: By = "seconds") -> float:
        """Returns the relative error; below 0 if the prediction is too fast."""
        return float(getattr(self, by)) / self.measured - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Statistics of the relative errors of predictions.

    Attributes:
        count: number of predictions.
        median: median absolute relative error.
        within10: fraction of predictions with an error of at most 10 %.
        within20: fraction of predictions with an error of at most 20 %.
    """

    count: int
    median: float
    within10: float
    within20: float


def score(predictions: Sequence[Prediction], by: By) -> Score:
    """Returns the error statistics of one way to predict; needs at least one prediction."""
    errors = [abs(one.error(by)) for one in predictions]
    return Score(
        count=len(errors),
        median=median(errors),
        within10=sum(error <= 0.1 for error in errors) / len(errors),
        within20=sum(error <= 0.2 for error in errors) / len(errors),
    )


def family(model: str) -> str | None:
    """Returns the family of a network; None if it is not in the registry."""
    try:
        return find_model(model).family
    except UserError:
        return None


def check_families(families: Iterable[str | None]) -> None:
    """Checks that there are enough families to predict each from the others.

    Args:
        families: the families of the networks; None is ignored.

    Raises:
        UserError: fewer than three.
    """
    names = sorted({name for name in families if name})
    if len(names) < MIN_FAMILIES:
        raise UserError(
            f"there are networks of {len(names)} families ({', '.join(names) or 'none'}): to "
            f"predict one from the others takes at least {MIN_FAMILIES}; make more with: make "
            "export"
        )


def leave_family_out(roofs: Sequence[Roof], families: Mapping[str, str]) -> list[Prediction]:
    """Predicts each of ``roofs`` from those of other families; the order is kept.

    Args:
        roofs: measured networks, at any precisions and batch sizes.
        families: registry name of a network to its family.

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
    """A model of the latency of networks.

    Args:
        roofs: the measured networks that it is trained on.
    """

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
        settings = {"max_iter": 100, "learning_rate": 0.15, "min_samples_leaf": 10}
        settings |= {"early_stopping": False, "random_state": 0}
        self._trees = HistGradientBoostingRegressor(**settings)
        features = np.concatenate([self._features(roof) for roof in roofs])
        # One thread: the trees are small, so synchronising threads would take longer.
        with threadpool_limits(limits=1):
            self._trees.fit(features, np.log(seconds / estimates), sample_weight=weights)
        self._roofs = tuple(roofs)

    def predict(self, roof: Roof) -> Prediction:
        """Returns the prediction for ``roof``, whose measured times are not used."""
        layers = _estimates(roof) * np.exp(self._trees.predict(self._features(roof)))
        peers = [one for one in self._roofs if one.setting == roof.setting]
        over = median(peer.times.call_seconds / peer.times.seconds for peer in peers or self._roofs)
        return Prediction(
            roof=roof,
            layers=tuple(layers.tolist()),
            seconds=float(layers.sum()) * over,
            line=_by_macs(peers or self._roofs, roof.times.macs, constant=True),
            rate=_by_macs(peers or self._roofs, roof.times.macs, constant=False),
        )

    def _features(self, roof: Roof) -> Floats:
        """Returns features (layers, columns); unknown kinds and operators are all zeros."""
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
    """Returns the roofline estimate of each layer in seconds, without any overlap."""
    sums = [bound.compute + bound.memory + bound.launch for bound in roof.bounds]
    return np.maximum(sums, _LEAST)


def _by_macs(roofs: Sequence[Roof], macs: int, *, constant: bool) -> float:
    """Returns the seconds for ``macs``, by a least-squares fit of relative errors to ``roofs``."""
    from scipy.optimize import nnls

    p50 = np.array([roof.times.call_seconds for roof in roofs])
    columns = np.array([[roof.times.macs / 1e6, float(constant)] for roof in roofs])
    found, _ = nnls(columns / p50[:, None], np.ones(len(roofs)))
    return float(found @ [macs / 1e6, float(constant)])
