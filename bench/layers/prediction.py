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
from itertools import groupby
from statistics import median
from typing import Any, Literal

import altair as alt
import numpy as np
import numpy.typing as npt

from bench.latency.charts import shape
from bench.layers.roofline import Roof
from core.errors import UserError
from models.cost import Kind
from models.registry import find_model
from report.format import ms, percent
from report.section import Figure, Section, Table

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
_MODEL, _MACS = "by its layers", "by its MACs"
_COLOURS = {_MODEL: "#3d86d6", _MACS: "#8b929c"}
_FAR = 0.5  # relative error above which a point of the chart is labelled
_NOTES = (
    "A call is predicted by a model that saw no network of its family: not its times, nor those "
    "of its other widths, depths and tweaks. Known of it are the kernels that ONNX Runtime makes "
    "of it, with their MACs and bytes, from one call. A layer takes the estimate of the roofline "
    "times a factor that boosted trees learn from its kind, operator and size; a call takes the "
    "sum of its layers times the median of p50 over the sum of kernels in the other networks, at "
    "its precision and batch size.",
    "What MACs alone predict is learned from the same other networks at the same precision and "
    "batch size: a constant and a rate, or a rate alone, neither negative, by least squares of "
    "relative errors. Errors are of the predicted latency, as a fraction of the measured p50.",
)


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


def prediction_section(predictions: Sequence[Prediction], unknown: Sequence[str] = ()) -> Section:
    """Returns a section on the errors of predictions, compared with those from MACs alone.

    Args:
        predictions: from :func:`leave_family_out`, at least one.
        unknown: networks that were left out, as their family is unknown.
    """
    sentences = [_sentence(predictions), _farthest(predictions)]
    if unknown:
        sentences.append(f"Left out, as their families are not known: {', '.join(unknown)}.")
    return Section(
        title="Latency predicted from layers",
        sentences=tuple(sentences),
        figures=(
            Figure(
                title="Predicted against measured latency",
                caption="Filled: predicted by its layers. Hollow: by a constant and a rate of "
                "MACs. On the line both are the same; the bands are 10 % and 20 % off. No network "
                "was predicted by one of its family. Both axes are logarithmic.",
                chart=_chart(predictions),
            ),
        ),
        tables=(_scores(predictions), _table(predictions)),
        notes=_NOTES,
    )


def _sentence(predictions: Sequence[Prediction]) -> str:
    layers, line, rate = (score(predictions, by) for by in WAYS)
    networks = len({one.roof.times.network for one in predictions})
    return (
        f"{len(predictions)} calls of {networks} networks, each predicted from networks of other "
        f"families only: by its layers {_words(layers)}; by a constant and a rate of MACs "
        f"{_words(line)}; by a rate of MACs alone {_words(rate)}."
    )


def _words(one: Score) -> str:
    return (
        f"{percent(one.within10, decimals=0)} are within 10 % of what was measured and "
        f"{percent(one.within20, decimals=0)} within 20 %, the median error is "
        f"{percent(one.median, decimals=0)}"
    )


def _farthest(predictions: Sequence[Prediction]) -> str:
    """Returns a sentence on the worst prediction and the kind of layer with the largest error."""
    worst = max(predictions, key=lambda one: abs(one.error()))
    times = worst.roof.times
    over: dict[Kind, float] = {}
    for layer, predicted in zip(times.layers, worst.layers, strict=True):
        over[layer.kind] = over.get(layer.kind, 0.0) + predicted - layer.seconds
    kind = max(over, key=lambda one: abs(over[one]))
    measured = sum(layer.seconds for layer in times.layers if layer.kind == kind)
    return (
        f"Farthest off is {times.network} ({times.precision}, batch {times.batch}): "
        f"{ms(worst.seconds)} ms instead of {ms(worst.measured)}. Of its layers, the {kind} ones "
        f"are predicted to take {ms(measured + over[kind])} ms and take {ms(measured)}."
    )


def _scores(predictions: Sequence[Prediction]) -> Table:
    """Returns the scores of each way to predict, for each setting and for all together."""
    ordered = sorted(predictions, key=lambda one: one.roof.setting)
    groups = [
        (f"{setting[0]}, batch {setting[1]}", list(group))
        for setting, group in groupby(ordered, key=lambda one: one.roof.setting)
    ]
    rows = []
    for name, group in [*groups, ("all", ordered)][len(groups) == 1 :]:
        for by, what in WAYS.items():
            one = score(group, by)
            shares = (one.median, one.within10, one.within20)
            cells = (percent(share, decimals=0) for share in shares)
            rows.append((name, what, str(one.count), *cells))
    header = ("Calls at", "Predicted by", "Calls", "Median error", "Within 10 %", "Within 20 %")
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:]))


def _table(predictions: Sequence[Prediction]) -> Table:
    header = (
        "Network", "Precision", "Batch", "Measured ms", "Predicted ms", "Off", "By MACs ms", "Off ",
    )  # fmt: skip
    rows = tuple(
        (
            one.roof.times.network,
            one.roof.times.precision,
            str(one.roof.times.batch),
            ms(one.measured),
            ms(one.seconds),
            f"{100 * one.error():+.0f} %",
            ms(one.line),
            f"{100 * one.error('line'):+.0f} %",
        )
        for one in sorted(predictions, key=lambda one: (*one.roof.setting, one.measured))
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[2:]))


def _chart(predictions: Sequence[Prediction]) -> Any:
    marks: list[dict[str, Any]] = [
        {
            "network": one.roof.times.network,
            "precision": one.roof.times.precision,
            "batch": one.roof.times.batch,
            "measured": one.measured * 1e3,
            "predicted": value * 1e3,
            "by": by,
            "label": one.roof.times.model if by == _MODEL and abs(one.error()) > _FAR else "",
        }
        for by, value, one in (
            *((_MACS, one.line, one) for one in predictions),
            *((_MODEL, one.seconds, one) for one in predictions),
        )
    ]
    values = [mark[axis] for mark in marks for axis in ("measured", "predicted")]
    ends = [min(values) / 1.3, max(values) * 1.3]
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(grid=False, tickCount=5, format="~g")
    x = alt.X("measured:Q", title="measured p50 (ms)", scale=scale, axis=axis)
    y = alt.Y("predicted:Q", title="predicted (ms)", scale=scale, axis=axis)
    bands = [
        alt.Chart(
            alt.Data(
                values=[{"at": at, "low": at * (1 - off), "high": at * (1 + off)} for at in ends]
            )
        )
        .mark_area(color=_COLOURS[_MODEL], opacity=0.12, clip=True)
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("low:Q", scale=scale), y2="high:Q")
        for off in (0.2, 0.1)
    ]
    same = (
        alt.Chart(alt.Data(values=[{"measured": at, "predicted": at} for at in ends]))
        .mark_line(strokeWidth=1, color=_COLOURS[_MACS])
        .encode(x=x, y=y)
    )
    colours = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    base = alt.Chart(alt.Data(values=marks)).encode(
        x=x,
        y=y,
        color=alt.Color("by:N", title=None, scale=colours),
        shape=shape(marks),
        tooltip=["network:N", "precision:N", "batch:O", "measured:Q", "predicted:Q", "by:N"],
    )
    hollow = base.transform_filter(f"datum.by == '{_MACS}'").mark_point(size=55, strokeWidth=1.5)
    filled = base.transform_filter(f"datum.by == '{_MODEL}'").mark_point(
        size=70, filled=True, opacity=0.9
    )
    names = (
        alt.Chart(alt.Data(values=[mark for mark in marks if mark["label"]]))
        .mark_text(align="right", dx=-8, fontSize=10, color=_COLOURS[_MACS])
        .encode(x=x, y=y, text="label:N")
    )
    return alt.layer(*bands, same, hollow, filled, names).properties(
        height=420, description="Predicted against measured latency, on log scales."
    )
