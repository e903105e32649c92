"""The console script: what it lists, what it imports, and whom it calls."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from core import cli
from core.lazy import resolve
from pocketnets.command import COMMANDS, SHELLS, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "bench export models numpy onnxruntime pydantic serving torch training tyro"

Started = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pocketnets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Started:
    """Returns what does as the console script does: a process takes seconds to start."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/pocketnets", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code or 0
        if isinstance(code, int):
            return subprocess.CompletedProcess(arguments, code, out, err)
        return subprocess.CompletedProcess(arguments, 1, out, f"{err}{code}\n")

    return run


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in an interpreter of its own, which prints its heavy modules last."""
    code = (
        "import sys; from pocketnets.command import main\n"
        "try: main()\n"
        f"finally: print(sorted(set('{HEAVY}'.split()) & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--version"]])
def test_what_is_no_command_imports_none(arguments: list[str]) -> None:
    ran = fresh(*arguments)
    assert ran.returncode == 0, ran.stderr
    *printed, modules = ran.stdout.splitlines()
    assert modules == "[]"
    if arguments == ["--version"]:
        assert printed[0].startswith("pocketnets 0.")
        assert "torch " in printed[0]
    else:
        listed = [line.split()[0] for line in printed if re.match("  [a-z]", line)]
        assert listed == list(COMMANDS)


def test_only_the_command_that_is_asked_for_is_imported(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    ran = fresh("list", "--json", "--artifacts", str(tmp_path / "artifacts"))
    assert ran.returncode == 0, ran.stderr
    modules = set(json.loads(ran.stdout.splitlines()[-1].replace("'", '"')))
    assert modules & {"torch", "bench", "serving", "training"} == set()


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--mean", "123.7", "--mean 123.7: each must be from 0 to 1"),
        ("--labels", "none.txt", "--labels none.txt: cannot be read"),
        ("--channels", "5", "--channels 5: it must be 1 (grey)"),
        ("--size", "192x", "'192x' is no size in pixels"),
    ],
)
def test_a_wrong_value_is_one_line_before_torch_is_imported(
    flag: str, value: str, told: str
) -> None:
    ran = fresh("export", "--model", "resnet14", "--checkpoint", "best.pth", flag, value)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert ran.stderr.startswith(f"error: {told}")
    assert "'torch'" not in ran.stdout


def test_an_unknown_command_is_one_line_with_the_closest() -> None:
    ran = fresh("trian")
    assert (ran.returncode, ran.stderr) == (
        1,
        "error: unknown command 'trian': did you mean train?\n",
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_calls_it_by_this_name(pocketnets: Started, name: str) -> None:
    ran = pocketnets(name, "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith(f"usage: pocketnets {name} ")
    assert COMMANDS[name].summary in " ".join(ran.stdout.split())


@pytest.mark.parametrize("name", ["train", "export", "serve", "models"])
def test_a_wrong_flag_names_the_command(pocketnets: Started, name: str) -> None:
    ran = pocketnets(name, "--no-such-flag")
    assert ran.returncode == 2
    assert f"pocketnets {name} --help" in ran.stderr
    assert "python -m" not in ran.stderr


def test_bench_takes_the_name_of_its_module_too(pocketnets: Started) -> None:
    assert pocketnets("bench", "run", "--help").stdout.startswith("usage: pocketnets bench run ")
    ran = pocketnets("bench", "layers")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "error: pocketnets bench has no 'layers': it has run, device, peers and flags of run; "
        "python -m bench --help lists more\n"
    )


def test_it_is_the_same_command(pocketnets: Started, command: Started) -> None:
    flags = ("--family", "mobilenet_v2", "--json")
    ours, module = pocketnets("models", *flags), command("models", *flags)
    assert json.loads(ours.stdout) == json.loads(module.stdout)
    assert len(json.loads(ours.stdout)) >= 1
    wrong = ("--family", "mobilenet_v22")
    ours, module = pocketnets("models", *wrong), command("models", *wrong)
    assert (ours.returncode, ours.stderr) == (module.returncode, module.stderr)
    assert ours.returncode == 1


def test_what_a_command_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/training/__main__.py", "--model", "x"])
    assert cli.program("training") == "python -m training"
    assert cli.by_name("bench --fresh", "make bench ARGS=--fresh") == "make bench ARGS=--fresh"
    monkeypatch.setattr(sys, "argv", ["pocketnets train", "--model", "x"])
    assert cli.program("training") == "pocketnets train"
    assert cli.by_name("bench --fresh", "make bench ARGS=--fresh") == "pocketnets bench --fresh"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_flags(pocketnets: Started, shell: str) -> None:
    ran = pocketnets("--print-completion", shell)
    assert ran.returncode == 0, ran.stderr
    for word in ("recipe.epochs", "allow-unverified", "max-batch"):
        assert word in ran.stdout
    for name in COMMANDS:
        assert name in ran.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("pocketnets tr", "train"), ("pocketnets serve --po", "--port"), ("pocketnets v", "verify")],
)
def test_bash_completes(pocketnets: Started, tmp_path: Path, typed: str, completed: str) -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("no bash")
    script = tmp_path / "completion"
    script.write_text(pocketnets("--print-completion", "bash").stdout)
    words = typed.split()
    ask = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        '_tyro_pocketnets; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run([bash, "-c", ask], capture_output=True, text=True, check=True)
    assert completed in ran.stdout.split()


@pytest.mark.parametrize("shell", [[], ["ksh"], ["bash", "zsh"]])
def test_completion_of_another_shell_is_refused(pocketnets: Started, shell: list[str]) -> None:
    ran = pocketnets("--print-completion", *shell)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert all(name in ran.stderr for name in SHELLS)


def test_the_package_installs_the_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert resolve(project["project"]["scripts"]["pocketnets"]) is main
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    ours = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert ours == {name for name in packages if "." not in name}
    assert all((ROOT / name / "py.typed").is_file() for name in ours)
