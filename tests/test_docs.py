"""Holds the pages to the code: every link, path, command and setting in them, and their site."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tyro
from pages import ENVIRONMENT, PAGES, ROOT, commands, prose, spans

import pocketnets.command
from serving.settings import describe

# Neither run nor parsed, by how they begin, and why not.
NOT_HERE = {
    "curl": "tests/test_readme.py sends it to a server",
    "tensorboard --logdir runs": "another program",
    "jq": "another program; the page says what it writes",
    "pip install '.[": "test_extras_exist",
    "apt-get install": "changes the system",
    "python -m models.timm_sketches": "takes minutes; its parts have tests of their own",
    "kill -": "tests/serving/test_supervisor.py sends these signals",
    "bentoml cloud login": "needs an account",
    "bentoml deploy": "needs an account",
    "bentoml serve": "tests/serving/test_bento.py runs it",
    "python -m serving.launch": "tests/serving/test_kubernetes.py runs it",
    ".venv/bin/bentoml containerize": "needs a container engine; test_bento.py builds the Bento",
    "docker": "needs a container engine",
    "kubectl": "needs a cluster; tests/serving/test_kubernetes.py checks the manifests",
}
# Words that stand for something, and something that they may stand for.
FILLED = {
    "NAME": "guidelines",
    "--model ...": "--model mobilenet_v3",
    "--data ...": "--data digits",
}
FOLDERS = {init.parent.name for init in ROOT.glob("*/__init__.py")} | {"docs", "tests"}
OURS = r"-m ((?:training|export|bench|serving|models|predict)[\w.]*)(.*)"
COMMANDS = sorted({command for page in PAGES for command in commands(page)})


def make_prints(command: str) -> list[str]:
    """Returns what ``make`` would run, without running it."""
    words = ["make", "--just-print", *shlex.split(command)[1:]]
    ran = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}: {ran.stderr}"
    return ran.stdout.splitlines()


class Parsed(Exception):
    """The command line was understood."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns what parses the arguments of one of our modules, and stops before it does more."""
    cli = tyro.cli

    def understand(*args: Any, **kwargs: Any) -> Any:
        parsed = cli(*args, **kwargs)
        if kwargs.get("return_unknown_args"):
            return parsed
        raise Parsed

    def parse(name: str, arguments: str) -> None:
        try:
            module = importlib.import_module(f"{name}.__main__")
        except ModuleNotFoundError:
            module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [name, *shlex.split(arguments)])
        monkeypatch.setattr(tyro, "cli", understand)
        monkeypatch.setattr("training.__main__.data_name", lambda data: "")
        with pytest.raises((Parsed, SystemExit)) as ended:
            module.main()
        if isinstance(ended.value, SystemExit):
            assert not ended.value.code, f"{name} {arguments}"  # --help ends with 0

    return parse


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, parse: Any) -> None:
    if any(command.startswith(start) for start in NOT_HERE):
        return
    for word, value in FILLED.items():
        command = command.replace(word, value)
    program, *rest = command.split()
    if program == "pocketnets" and len(rest) == 1 and rest[0] in pocketnets.command.COMMANDS:
        return  # named in a sentence, not called
    assert program in ("make", "pocketnets", "python", "torchrun"), "run, parse, or say why not"
    lines = make_prints(command) if program == "make" else [command]
    ours = [found for line in lines for found in re.findall(OURS, line)]
    if program == "pocketnets":
        ours = [("pocketnets", command.removeprefix(program))]
    assert ours or program == "make"
    for module, arguments in ours:
        parse(module, arguments)


def test_every_exception_is_of_a_command() -> None:
    assert [start for start in NOT_HERE if not any(c.startswith(start) for c in COMMANDS)] == []


def test_every_target_is_told() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    told = {command.split()[1] for command in COMMANDS if re.match(r"make [a-z]", command)}
    assert set(targets) - {"help"} == told


def test_every_command_is_told() -> None:
    rows = re.findall(r"^\| `pocketnets (\w+)[ `]", (ROOT / "docs/cli.md").read_text(), re.M)
    assert sorted(rows) == sorted(pocketnets.command.COMMANDS)


def test_extras_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"install '\.\[(\w+)\]'", prose(page))}
    assert named
    assert named <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("tells of what was")
    for span in spans(page):
        top, slash, _ = span.partition("/")
        if slash and re.fullmatch(r"[\w./-]+", span) and top in FOLDERS:
            assert (ROOT / span).exists(), span


def test_types_shown_exist() -> None:
    file = None
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        if found := re.fullmatch(r"# ([\w/]+\.py)", line):
            file = ROOT / found[1]
        elif file and (found := re.match(r" *(?:class|def) \w+", line)):
            assert re.search(rf"^{found[0]}\b", file.read_text(), flags=re.MULTILINE), line
    assert file is not None


def test_settings_named_exist() -> None:
    known = {name for name, _, _ in describe()} | {"POCKETNETS_DATA"}
    text = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"POCKETNETS_[A-Z_]+", text)) <= known


class Loaded(HTMLParser):
    """Collects what a browser loads for a page by itself; links are for people."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        address = found.get("href") if tag == "link" else found.get("src")
        self.addresses += [address] if address else []


def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; make setup installs it")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # and 404.html
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert [a for a in loaded.addresses if re.match(r"(https?:)?//", a)] == []
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text()), style
