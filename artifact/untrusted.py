"""Files that may hold anything, to JSON fields and arrays. No torch here: a server imports this."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.integrity import ArtifactError, regular_file
from core.errors import first_line

MAX_LEVELS = 8  # objects and arrays inside one another; a manifest has four


def read_fields(folder: Path, name: str) -> dict[str, Any]:
    """Returns the JSON object in file ``name`` of ``folder``.

    Stricter than JSON is read elsewhere: two readers must not see two different manifests.

    Raises:
        ArtifactError: no such file, or not UTF-8, a byte-order mark, a key twice, NaN, an
            integer of thousands of digits, nesting too deep, no object.
    """
    file = regular_file(folder, name)
    try:
        fields = json.loads(
            file.read_bytes().decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if not isinstance(fields, dict):
            raise ValueError("no object")
        if not _nests_at_most(MAX_LEVELS, fields):
            raise ValueError(f"nested deeper than {MAX_LEVELS} levels")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: not JSON ({first_line(error)}); export it again") from None
    return fields


def read_array(folder: Path, name: str, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns the array (n, *shape) in the ``.npy`` file ``name`` of ``folder``; n is at least 1.

    What its header claims is compared with the size of the file before anything is allocated.

    Args:
        folder: of an artifact.
        name: of the file in it.
        kind: NumPy dtype that the array must have; never object, which is pickled.
        shape: of one element.

    Raises:
        ArtifactError: no such file, or not a C-contiguous array of that dtype and shape.
    """
    file, dtype = regular_file(folder, name), np.dtype(kind)
    with file.open("rb") as stream:
        try:
            if (version := np.lib.format.read_magic(stream)) != (1, 0):
                raise ValueError(f"version {version}")
            found, fortran, found_dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # its parser lets many kinds escape on broken bytes
            why = first_line(error)
            raise ArtifactError(f"{file}: not a .npy file ({why}); export it again") from None
        if (found_dtype, fortran, found[1:]) != (dtype, False, shape):
            raise ArtifactError(
                f"{file}: {found_dtype} {list(found)}, but the manifest wants {dtype} "
                f"{['n', *shape]} in C order; export it again"
            )
        count = found[0] * math.prod(shape)
        left = os.fstat(stream.fileno()).st_size - stream.tell()
        if found[0] < 1 or count * dtype.itemsize != left:
            raise ArtifactError(
                f"{file}: {left} bytes follow a header that says {list(found)}; export it again"
            )
        return np.fromfile(stream, dtype, count).reshape(found)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _nests_at_most(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_nests_at_most(levels - 1, each) for each in inner)
