"""python -m models: the table of all networks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import tyro
from rich.table import Table
from tyro.conf import Positional

from core import cli
from core.errors import UserError, unknown
from core.image_size import Size, sides, size_text
from core.lazy import resolve
from core.names import canonical_name
from core.size_flag import SizeFlag
from models.cost import NetworkCost, known_costs
from models.registry import find_model, list_families, list_models

_HEADS = ["network", "family", "input", "classes", "params M", "MACs M", "activ. M", "moved MB"]
_HEADS += ["FLOP/byte"]
_NOTE = (
    "Per image, counted from the exported graph (batch norm folded), but for parameters: those are "
    "the torch network's. FLOPs = 2 x MACs. "
    "Activ.(ations): outputs of convolutions and matrix products. Moved: every layer's input, "
    "weights and output once each, in float32."
)


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the networks and what they cost."""

    names: Positional[tuple[str, ...]] = ()
    """Only these networks; timm/<name> too, each of which takes some seconds to count."""
    size: SizeFlag = None
    """Size of the input images in pixels, a side or HEIGHTxWIDTH; default: the size each was
    designed for."""
    channels: Literal[1, 2, 3, 4] = 3
    """Channels of the input images: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    family: tuple[str, ...] = ()
    """Only these families, such as mobilenet_v2 resnet."""
    sort: Literal[
        "name", "family", "size", "parameters", "macs", "activations", "bytes_moved", "intensity"
    ] = "family"
    """Sort key, in ascending order; within a family by MACs."""
    json: bool = False
    """Print a JSON list instead of the table, in units without prefixes."""
    markdown: bool = False
    """Print a Markdown table."""
    input_sizes: tuple[str, ...] = ()
    """Print the input sizes that these networks accept, found by trying; timm/<name> too."""


def rows(family: tuple[str, ...] = (), sort: str = "family") -> list[dict[str, Any]]:
    """Returns a row per network: name, family, size (px), classes, and the fields of its cost.

    Raises:
        UserError: unknown family, or a network without counted costs.
    """
    if new := [name for name in list_models() if name not in known_costs()]:
        raise UserError(f"{', '.join(new)}: never counted; python -m export.costs counts them")
    families = list_families()
    for wanted in family:
        if wanted not in families:
            raise unknown("family", wanted, families)
    names = [name for name in list_models() if not family or find_model(name).family in family]
    return _sorted([_row(name, known_costs()[name]) for name in names], sort)


def counted_rows(
    names: Sequence[str], size: Size | None = None, sort: str = "family", channels: int = 3
) -> list[dict[str, Any]]:
    """Returns rows as :func:`rows` does for ``names``, counting costs that are not known yet.

    Args:
        names: registry names, or ``timm/<name>``.
        size: of the input images, in pixels; None for each network's native size.
        sort: name of the field to sort by.
        channels: of the input images.

    Raises:
        UserError: unknown network, or one that does not accept such images.
    """
    count = resolve("export.costs:count")  # export is a higher layer, so it is resolved by name
    found = []
    for name in dict.fromkeys(map(canonical_name, names)):
        native = size in (None, find_model(name).native_size) and channels == 3
        cost = known_costs().get(name) if native else None
        found.append(_row(name, cost or count(name, size, channels), size, channels))
    return _sorted(found, sort)


def _row(
    name: str, cost: NetworkCost, size: Size | None = None, channels: int = 3
) -> dict[str, Any]:
    entry = find_model(name)
    return {
        "name": name,
        "family": entry.family,
        "size": size or entry.native_size,
        "channels": channels,
        "classes": entry.native_classes,
        **asdict(cost),
        "intensity": cost.intensity,
    }


def _sorted(found: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    def key(row: dict[str, Any]) -> Any:
        return math.prod(sides(row["size"])) if sort == "size" else row[sort]

    return sorted(found, key=lambda row: (key(row), row["macs"]))


def main() -> None:
    """Prints the table as text, JSON or Markdown."""
    args = tyro.cli(Models, prog=cli.program("models"), description=Models.__doc__)
    if args.json and args.markdown:
        raise UserError("--json and --markdown are both given: ask for one of them")
    if args.input_sizes and (args.names or args.family or args.size or args.channels != 3):
        raise UserError("--input-sizes tries the sizes itself: leave out the other flags")
    if args.input_sizes:
        from models.input_size import input_sizes  # needs torch

        for name in args.input_sizes:
            print(f"{name}: {input_sizes(name)}")
        return
    if args.names and args.family:
        raise UserError("networks and --family are both given: ask for one of them")
    if not args.names and (args.size is not None or args.channels != 3):
        given = (
            f"--channels {args.channels}" if args.size is None else f"--size {size_text(args.size)}"
        )
        raise UserError(f"{given}: no network is named; say which to count")
    if args.names:
        found = counted_rows(args.names, args.size, args.sort, args.channels)
    else:
        found = rows(args.family, args.sort)
    if args.json:
        print(json.dumps(found, indent=1))
    elif args.markdown:
        lines = [_HEADS, ["---"] * 2 + ["---:"] * (len(_HEADS) - 2), *map(_cells, found)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        print(f"\n{_NOTE}")
    else:
        table = Table(caption=_NOTE, caption_justify="left")
        for index, head in enumerate(_HEADS):
            table.add_column(head, justify="left" if index < 2 else "right", no_wrap=True)
        for row in found:
            table.add_row(*_cells(row))
        cli.results().print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["family"],
        size_text(row["size"]) + ("" if row["channels"] == 3 else f", {row['channels']}ch"),
        str(row["classes"]),
        f"{row['parameters'] / 1e6:,.3f}",
        f"{row['macs'] / 1e6:,.1f}",
        f"{row['activations'] / 1e6:,.2f}",
        f"{row['bytes_moved'] / 1e6:,.1f}",
        f"{row['intensity']:.1f}",
    ]


if __name__ == "__main__":
    cli.run(main)
