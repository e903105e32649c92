"""The pages of this repository, and the commands that stand in them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
# The first column of tables of commands, and what asks the service; test_docs.py parses the others.
_TEXT = "".join(page.read_text() for page in PAGES)
TABLED = list(dict.fromkeys(re.findall(r"^\| `(make [^`]+)` \|", _TEXT, flags=re.MULTILINE)))
CURLS = list(dict.fromkeys(re.findall(r"^curl .+$", _TEXT, flags=re.MULTILINE)))

# First words of what is a command within a sentence; in a shell block, every line is one.
PROGRAMS = ("make", "pocketnets", "python", "torchrun", "curl", "tensorboard", "pip", "apt-get")
PROGRAMS += ("kill", "bentoml", ".venv/bin/bentoml", "docker", "kubectl")
# What flags in a span of their own, ARGS="...", are for.
FLAGS_OF = {
    "training.md": "make train MODEL=mobilenet_v3 DATA=digits",
    "export.md": "make export MODEL=mobilenet_v3 DATA=digits",
    "serving.md": "make load",
}
# What make hands down to its children: make test ARGS=--slow is not meant for the commands here.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """Returns the text of ``page`` without its blocks of code."""
    return _BLOCK.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """Returns the code within the sentences and tables of ``page``, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> Iterator[str]:
    """Yields each command of ``page`` as it is written: in shell blocks, then within sentences."""
    for language, block in _BLOCK.findall(page.read_text()):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield shlex.join(words) if "#" in line else line
    for span in spans(page):
        if span.split()[0] in PROGRAMS:
            yield span
        elif span.startswith("ARGS=") and span != 'ARGS="..."':
            yield f"{FLAGS_OF.get(page.name, 'make bench')} {span}"
