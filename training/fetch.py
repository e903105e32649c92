"""Downloads data sets to one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from core.errors import UserError, first_line


def data_folder() -> Path:
    """Returns where fetched data sets are kept: ``$POCKETNETS_DATA``, or ``data`` below here.

    It is laid out as torchvision does it, so what torchvision fetched before is found.
    """
    return Path(os.environ.get("POCKETNETS_DATA") or "data").expanduser()


@contextmanager
def fetching(
    name: str, folder: Path, url: str, archives: Mapping[str, str], *, also: str = ""
) -> Iterator[None]:
    """Turns exceptions while torchvision downloads or unpacks into a UserError.

    Args:
        name: the data set.
        folder: where its archives are kept, in :func:`data_folder`.
        url: where they come from.
        archives: MD5 of each, by file name.
        also: end of the message: another way to get them.

    Raises:
        UserError: an archive is missing or damaged; the message says which and where to put it.
    """
    try:
        yield
    except (OSError, HTTPException, RuntimeError) as error:  # torchvision: RuntimeError for an MD5
        from torchvision.datasets.utils import check_integrity

        reason = first_line(error)
        broken = [file for file, md5 in archives.items() if not check_integrity(folder / file, md5)]
        if not broken:
            raise UserError(
                f"{name}: {', '.join(archives)} could not be unpacked in {folder} ({reason}); "
                "is there room, and may you write there?"
            ) from error
        cut = [str(folder / file) for file in broken if (folder / file).is_file()]
        what = f"{cut[0]} is damaged or cut short" if cut else f"{broken[0]} is not in {folder}"
        inside = (folder / broken[0]).relative_to(data_folder())
        raise UserError(
            f"{name}: {what} and could not be fetched ({reason}); put {' and '.join(broken)} from "
            f"{url} into {folder}, or set POCKETNETS_DATA to the folder that holds {inside}{also}"
        ) from error
