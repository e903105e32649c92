"""The options of the functions of ``import pocketnets``, as the commands have them."""

from __future__ import annotations

import numbers
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.options import FolderLayout

_KINDS: dict[type, tuple[type, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
}


def arguments() -> dict[str, str]:
    """Returns the flags of a training that errors name, with the arguments of :func:`train`."""
    from training.accelerators import Accelerators
    from training.options import FolderOptions
    from training.recipe import Recipe

    names = {"--log": "log", "--recipe-name": "recipe"}
    names |= {f"--{name}": f"{name}=True" for name in ("resume", "fresh")}
    for kind, prefix in ((Recipe, "recipe."), (FolderOptions, ""), (Accelerators, "machine.")):
        names |= _flags(kind, prefix)
    return names


def asked(
    function: str, model: str, data: str | Path, recipe: str | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of :func:`training.fit.fit` that ``changes`` stand for.

    Raises:
        UserError: an unknown name among them, or data that cannot be used.
    """
    import dataclasses

    from core import cli
    from core.errors import unknown
    from training.accelerators import Accelerators
    from training.datasets import load_data
    from training.look import look
    from training.options import FolderOptions
    from training.recipe import Recipe
    from training.recipes import default_recipe, find_recipe

    kinds = (Recipe, FolderOptions, Accelerators)
    names = {kind: [field.name for field in dataclasses.fields(kind)] for kind in kinds}
    every = [name for of_kind in names.values() for name in of_kind]
    for name in changes:
        if name not in every:
            raise unknown("option of a training", name, every)
    for kind in kinds:
        _check_kinds(kind, changes)
    fields, read, devices = (
        {name: value for name, value in changes.items() if name in names[kind]} for kind in kinds
    )
    named = recipe or default_recipe(model, str(data))
    options = FolderOptions(**_plain(read))
    images = look(load_data(str(data), options), options)
    for line in images.scan.lines():
        cli.notes().print(line, soft_wrap=True, markup=False)
    return {
        "model": model,
        "data": images,
        "recipe": dataclasses.replace(find_recipe(named, model, images.name), **fields),
        "recipe_name": named,
        "command": call(function, model, data, named, changes),
        "machine": Accelerators(**devices),
        "options": options,
    }


def _check_kinds(options: type[Any], given: Mapping[str, Any]) -> None:
    """Raises UserError if what is given for a number or a switch of ``options`` is of no such kind.

    Args:
        options: a class of options.
        given: names, which may be those of other classes, with their values.
    """
    from core.errors import UserError

    hints = typing.get_type_hints(options)
    for name in hints.keys() & given.keys():
        kinds, value = (hints[name], *typing.get_args(hints[name])), given[name]
        kind = next((each for each in _KINDS if each in kinds), None)
        if kind is None or (value is None and type(None) in kinds):
            continue
        abstract, words = _KINDS[kind]
        if not isinstance(value, abstract) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{name} is {value!r}: it must be {words}")


def layout_of(**read: Any) -> FolderLayout:
    """Returns how to read a folder, from the fields of :class:`training.options.FolderLayout`.

    Raises:
        UserError: text where a list is meant.
    """
    from training.options import FolderLayout

    return FolderLayout(**_plain(read))


def layout_names() -> dict[str, str]:
    """Returns the flags of a layout that errors name, with the arguments of evaluate."""
    from training.options import FolderLayout

    return _flags(FolderLayout)


def _flags(options: type[Any], prefix: str = "") -> dict[str, str]:
    """Returns the flags of ``options`` with their arguments in Python: a switch is ``=True``."""
    import dataclasses

    return {
        f"--{prefix}{field.name.replace('_', '-')}": field.name
        + ("=True" if field.default is False else "")
        for field in dataclasses.fields(options)
    }


def _plain(read: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of a folder as a checkpoint stores them.

    Raises:
        UserError: text where a list is meant.
    """
    from core.errors import UserError

    for name, value in read.items():
        if name in ("labels_columns", "split_folders") and isinstance(value, str):
            raise UserError(f"{name} is {value!r}: it takes a list, such as {value.split()}")
    return {name: _as_flag(value) for name, value in read.items()}


def _as_flag(value: Any) -> Any:
    """Returns an option as the command line has it: text for a path, a tuple for a list."""
    if isinstance(value, Path):
        return str(value)
    return tuple(map(str, value)) if isinstance(value, list | tuple) else value


def call(
    function: str, model: str, data: str | Path, recipe: str, changes: Mapping[str, Any]
) -> str:
    """Returns the call that repeats a run, for its README."""
    given = "".join(f", {name}={_as_flag(value)!r}" for name, value in changes.items())
    return f"# in Python: pocketnets.{function}({model!r}, {str(data)!r}, recipe={recipe!r}{given})"
