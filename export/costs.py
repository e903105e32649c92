"""python -m export.costs: counts the costs of networks, which ``python -m models`` prints."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import torch
import tyro
from torch import nn

from core import cli
from core.cores import usable_cores
from core.files import write_whole
from core.image_size import Size
from core.names import canonical_name
from export.jobs import stopping
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.cost import (
    COSTS_FILE,
    NetworkCost,
    count_parameters,
    known_costs,
    network_cost,
    to_json,
)
from models.inference_form import inference_form
from models.input_size import check_input_size
from models.registry import build_model, find_model, list_models


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Export networks with random weights, count their costs and keep them in models/costs.json."""

    models: tuple[str, ...] = ()
    """Networks to count again; default: those of the registry without counted costs."""


def countable(name: str, size: Size | None = None, channels: int = 3) -> Classifier:
    """Returns a registry network with random weights, gains and biases, with native classes.

    Untrained biases are zero, and the exporter drops additions of zero, so the graph of an
    untrained network would move fewer bytes than that of a trained one. ``size`` and ``channels``
    are those of the images, as in :func:`models.registry.build_model`.
    """
    classes = find_model(name).native_classes
    backbone = build_model(name, num_classes=classes, size=size, channels=channels)
    network = Classifier(backbone, mean=(0.5,) * channels, std=(0.5,) * channels)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.1)
    return network


def count(name: str, size: Size | None = None, channels: int = 3) -> NetworkCost:
    """Returns the cost of a network for its native number of classes.

    Args:
        name: registry name, or ``timm/<name>``.
        size: of the input images, in pixels; None for its native size.
        channels: of the input images.

    Raises:
        UserError: unknown network, or one that does not accept such images.
    """
    size = find_model(name).native_size if size is None else size
    classes = find_model(name).native_classes
    check_input_size(name, size, classes=classes, resized=True, channels=channels)
    torch.set_num_threads(1)
    network = inference_form(countable(name, size, channels))
    graph = to_onnx(network, size=size)
    return network_cost(graph, parameters=count_parameters(network))


def main() -> None:
    """Counts with one process per core; writes after every network, so it can be interrupted."""
    args = tyro.cli(Costs, prog="python -m export.costs", description=Costs.__doc__)
    costs = dict(known_costs())
    names = [canonical_name(name) for name in args.models]
    names = names or [name for name in list_models() if name not in costs]
    for name in names:
        find_model(name)
    notes = cli.notes()
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(count, name): name for name in names}
        with stopping(waiting):
            for done in as_completed(waiting):
                name = waiting[done]
                costs[name] = done.result()
                write_whole(COSTS_FILE, to_json(costs))
                notes.print(f"{name}: {costs[name].macs / 1e6:,.3f} M MACs")
    print(COSTS_FILE)


if __name__ == "__main__":
    cli.run(main)
