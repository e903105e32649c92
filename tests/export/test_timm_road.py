"""Networks of timm down the road: random weights to every default format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

from core.errors import UserError
from export import network, prover
from export.build import Options, Outcome, build_artifacts
from export.network import load_network

pytestmark = pytest.mark.slow

IMAGES = 16  # of each kind, where an export looks at 64
NAMES = []
# What becomes of the others: part of the reason, by the name of the format, or of all.
REASONS: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Returns the rows of a Markdown table, which is written in the end: ``reports/timm.md``."""
    rows = ["| network | M MACs | shape nodes | formats |", "|---|---:|---:|---|"]
    yield rows
    file = ROOT / "reports" / "timm.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_timm_comes_in_every_format(
    name: str, table: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, constant in ((network, "PHOTOS"), (prover, "IMAGES"), (prover, "FEW_IMAGES")):
        monkeypatch.setattr(module, constant, IMAGES)
    network._photos.cache_clear()
    expected = REASONS.get(name, {})
    try:
        outcomes = list(
            build_artifacts(
                load_network(f"timm/{name}", None, "random"), options=Options(max_batch=8)
            )
        )
    except UserError as error:
        outcomes = [Outcome("all", reason=str(error), failed=True)]
    finally:
        network._photos.cache_clear()
    table.append(row(name, outcomes))
    missing = {each.target: each.reason or "" for each in outcomes if each.artifact is None}
    assert missing.keys() == expected.keys(), missing
    for target, reason in missing.items():
        assert expected[target] in reason


def row(name: str, outcomes: list[Outcome]) -> str:
    """Returns what became of a network as a row of a table."""
    made = [each.artifact for each in outcomes if each.artifact]
    macs = f"{made[0].macs / 1e6:,.1f}" if made else ""
    shapes = str(made[0].shape_nodes) if made else ""
    reasons = [f"{each.target}: {each.reason}" for each in outcomes if each.reason]
    count = "all" if len(made) == len(outcomes) else f"{len(made)} of {len(outcomes)}"
    return f"| {name} | {macs} | {shapes} | {'; '.join([count, *reasons])} |"
