"""Runs the notebook of the docs from its first cell to its last, and holds a page to it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

NOTEBOOK, PAGE = ROOT / "docs/tour.ipynb", ROOT / "docs/python.md"


def cells(kind: str) -> list[str]:
    """Returns the text of the notebook's cells of a kind."""
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 4)
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_runs_from_top_to_bottom(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As Jupyter does, less its display: each cell runs in the names that those before it left.
    # Not in a process of its own: to import torch and Lightning takes seconds.
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells("code")):
        exec(compile(cell, f"cell {number}", "exec", dont_inherit=True), names)
    printed = capsys.readouterr().out
    assert "top-1" in printed
    top1 = [float(share) for share in re.findall(r"([\d.]+)%", printed)]
    assert min(top1) > 50  # one epoch learns most digits; chance is 10
    for name in ("resnet14-digits/onnx-fp32", "resnet14-digits/onnx-int8", "own-digits/onnx-fp32"):
        assert (here / "artifacts" / name / "manifest.json").is_file()
    truth, answers = re.findall(r"^(?:truth  |answers) (.+)$", printed, flags=re.MULTILINE)
    assert len(truth.split()) == len(answers.split()) == 8
    trained, fp32 = top1[:2]
    assert abs(trained - fp32) <= 0.3  # the same network, on the same images


def test_the_page_shows_cells_of_the_notebook() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    assert [block for block in blocks if block.rstrip("\n") not in cells("code")] == []
