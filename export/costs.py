"""python -m export.costs: counts what each network costs, for ``python -m models`` to print."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import tyro

from models import cli
from models.cores import usable_cores
from models.cost import COSTS_FILE, NetworkCost, known_costs, network_cost, to_json
from models.files import write_whole
from models.registry import canonical_name, find_model, list_models


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Export networks with random weights, count their costs and keep them in models/costs.json."""

    models: tuple[str, ...] = ()
    """Networks to count again; left out: those of the registry that were never counted."""


def count(name: str) -> NetworkCost:
    """Returns the cost of a registry network at its native size and number of classes."""
    import torch

    from export.to_onnx import to_onnx
    from models.classifier import Classifier
    from models.registry import build_model

    torch.set_num_threads(1)
    entry = find_model(name)
    network = Classifier(build_model(name, num_classes=entry.native_classes))
    return network_cost(to_onnx(network, size=entry.native_size, max_batch=8))


def main() -> None:
    """Counts, a process per core, and writes after every network, so that it can be cut short."""
    args = tyro.cli(Costs, prog="python -m export.costs", description=Costs.__doc__)
    costs = dict(known_costs())
    names = [canonical_name(name) for name in args.models]
    names = names or [name for name in list_models() if name not in costs]
    for name in names:
        find_model(name)
    notes = cli.notes()
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(count, name): name for name in names}
        for done in as_completed(waiting):
            name = waiting[done]
            costs[name] = done.result()
            write_whole(COSTS_FILE, to_json(costs))
            notes.print(f"{name}: {costs[name].macs / 1e6:,.3f} M MACs")
    print(COSTS_FILE)


if __name__ == "__main__":
    cli.run(main)
