"""Writes rows to CSV, JSON Lines or Parquet, chosen by the file's suffix."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any

from core.errors import UserError
from core.files import whole_file
from predict.pipeline import Row

Write = Callable[[IO[bytes], Iterable[Row], int], None]
_ROW_GROUP = 50_000


def find_sink(out: Path) -> Write:
    """Returns the function that writes rows to a file with the suffix of ``out``.

    Raises:
        UserError: an unknown suffix, or a missing package.
    """
    try:
        sink = _SINKS[out.suffix.lower()]
    except KeyError:
        raise UserError(f"--out {out}: its name must end in {', '.join(_SINKS)}") from None
    if sink is write_parquet and find_spec("pyarrow") is None:
        raise UserError(f"--out {out}: Parquet needs pyarrow: pip install '.[parquet]'")
    return sink


def write_rows(out: Path, rows: Iterable[Row], top_k: int) -> None:
    """Writes ``rows`` with ``top_k`` classes each to ``out`` atomically, by rename."""
    write = find_sink(out)
    with whole_file(out) as file:
        write(file, rows, top_k)


def json_line(row: Row) -> str:
    """Returns ``row`` as a line of JSON, with predictions in the format of the service."""
    top, indices = (
        ((), ()) if row.prediction is None else (row.prediction.top, row.prediction.indices)
    )
    predictions = [
        {"label": label, "index": index, "score": score}
        for (label, score), index in zip(top, indices, strict=True)
    ]
    fields = {"path": row.path, "predictions": predictions, "error": row.error}
    return json.dumps(fields, ensure_ascii=False)


def columns(top_k: int) -> list[str]:
    """Returns the column names of a table with ``top_k`` classes per row."""
    more = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", "score")]
    return ["path", "label", "score", *more, "error"]


def cells(row: Row, top_k: int) -> list[Any]:
    """Returns the cells of ``row`` for :func:`columns`; None for empty ones."""
    top = () if row.prediction is None else row.prediction.top
    pairs = [cell for pair in top for cell in pair]
    return [row.path, *pairs, *[None] * (2 * top_k - len(pairs)), row.error]


def write_csv(file: IO[bytes], rows: Iterable[Row], top_k: int) -> None:
    """Writes ``rows`` as CSV in UTF-8, with a header line."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(top_k))
    writer.writerows(cells(row, top_k) for row in rows)
    text.detach()


def write_json_lines(file: IO[bytes], rows: Iterable[Row], top_k: int) -> None:
    """Writes ``rows`` as JSON Lines in UTF-8."""
    file.writelines(f"{json_line(row)}\n".encode() for row in rows)


def parquet_schema(top_k: int) -> Any:
    """Returns the schema of the Parquet file of rows with ``top_k`` classes each."""
    import pyarrow

    return pyarrow.schema(
        [
            (name, pyarrow.float64() if name.startswith("score") else pyarrow.string())
            for name in columns(top_k)
        ]
    )


def record_batch(rows: Sequence[Row], top_k: int) -> Any:
    """Returns ``rows``, at least one, as a record batch of :func:`parquet_schema`."""
    import pyarrow

    schema = parquet_schema(top_k)
    table = zip(*(cells(row, top_k) for row in rows), strict=True)
    arrays = [pyarrow.array(each, kind) for each, kind in zip(table, schema.types, strict=True)]
    return pyarrow.record_batch(arrays, schema)


def write_parquet(file: IO[bytes], rows: Iterable[Row], top_k: int) -> None:
    """Writes ``rows`` as Parquet with the columns of the CSV file; empty cells are null."""
    import pyarrow.parquet

    schema = parquet_schema(top_k)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_batch(record_batch(group, top_k))


_SINKS: dict[str, Write] = {
    ".csv": write_csv,
    ".jsonl": write_json_lines,
    ".ndjson": write_json_lines,
    ".parquet": write_parquet,
}


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while group := list(islice(source, _ROW_GROUP)):
        yield group
