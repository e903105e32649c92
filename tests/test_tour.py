"""Runs the notebook of the docs from its first cell to its last, and holds a page to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pages import ENVIRONMENT, ROOT

NOTEBOOK, PAGE = ROOT / "docs/tour.ipynb", ROOT / "docs/python.md"
# What Jupyter does, less its display: each cell is run in the names that those before it left.
RUN = """
import json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(sys.stdin)):
    exec(compile(cell, f"cell {number}", "exec"), names)
"""


def cells(kind: str) -> list[str]:
    """Returns the text of the notebook's cells of a kind."""
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 4)
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(cells("code")),
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "top-1" in ran.stdout
    top1 = [float(share) for share in re.findall(r"([\d.]+)%", ran.stdout)]
    assert min(top1) > 50  # one epoch learns most digits; chance is 10
    for name in ("resnet14-digits/onnx-fp32", "resnet14-digits/onnx-int8", "own-digits/onnx-fp32"):
        assert (tmp_path / "artifacts" / name / "manifest.json").is_file()
    truth, answers = re.findall(r"^(?:truth  |answers) (.+)$", ran.stdout, flags=re.MULTILINE)
    assert len(truth.split()) == len(answers.split()) == 8
    trained, fp32 = top1[:2]
    assert abs(trained - fp32) <= 0.3  # the same network, on the same images


def test_the_page_shows_cells_of_the_notebook() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    assert [block for block in blocks if block.rstrip("\n") not in cells("code")] == []
