from __future__ import annotations

import importlib.metadata
from typing import NoReturn

import pytest

import core.version
from core.version import own_version


def test_a_tree_that_is_not_installed_has_the_version_of_its_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = own_version()
    assert installed == importlib.metadata.version("pocketnets")

    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(core.version, "version", missing)
    assert own_version() == installed
