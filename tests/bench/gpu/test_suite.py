"""The step that runs the tests marked gpu, on tests of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gpu.process import Budget
from bench.gpu.steps import run_tests as run
from core.errors import UserError

TEST = """
import pytest

@pytest.mark.gpu
def test_on_a_gpu():
    assert {value}

def test_elsewhere():
    assert False
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nmarkers = ['gpu: needs a GPU']\n"
    )
    # What cannot even be imported here is not looked at.
    (tmp_path / "tests" / "test_other.py").write_text("import no_such_package\n")
    return tmp_path


def test_only_marked_tests_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tests" / "test_a.py").write_text(TEST.format(value=True))
    assert run(root, Budget(60), root=root).startswith("1 passed, 1 deselected in ")
    assert "1 passed" in capsys.readouterr().out


def test_a_failure_is_an_error(root: Path) -> None:
    (root / "tests" / "test_a.py").write_text(TEST.format(value=False))
    with pytest.raises(UserError, match=r"pytest ends with 1: 1 failed, 1 deselected in .*log"):
        run(root, Budget(60), root=root)


def test_tests_that_are_all_left_out_are_an_error(root: Path) -> None:
    skipped = TEST.format(value=True).replace("@pytest.mark.gpu", "@pytest.mark.gpu\n@SKIP")
    text = f"import pytest\n\nSKIP = pytest.mark.skip\n{skipped}"
    (root / "tests" / "test_a.py").write_text(text)
    with pytest.raises(UserError, match="no test ran: 1 skipped, 1 deselected in"):
        run(root, Budget(60), root=root)


def test_no_tests_are_an_error(root: Path) -> None:
    with pytest.raises(UserError, match="no test here is marked gpu"):
        run(root, Budget(60), root=root)
