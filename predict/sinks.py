"""Writes rows to CSV, JSON Lines or Parquet, chosen by the file's suffix."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from artifact.answering import UNSURE, Answering
from core.errors import UserError
from core.files import whole_file
from predict.pipeline import Row

_ROW_GROUP = 50_000
SEPARATOR = "|"  # of several labels in a cell


class Form(NamedTuple):
    """What the rows of a run hold.

    Attributes:
        top_k: number of classes in each.
        answering: how their answers were made: with a reason if they may have none, or several.
    """

    top_k: int
    answering: Answering

    @property
    def several(self) -> bool:
        """Returns whether an image may have several labels."""
        return self.answering.task == "multi"

    @property
    def abstains(self) -> bool:
        """Returns whether a row may have no class."""
        return self.answering.least is not None


Write = Callable[[IO[bytes], Iterable[Row], Form], None]


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


def write_rows(out: Path, rows: Iterable[Row], form: Form) -> None:
    """Writes ``rows`` of a ``form`` to ``out`` atomically, by rename."""
    write = find_sink(out)
    with whole_file(out) as file:
        write(file, rows, form)


def json_line(row: Row, form: Form) -> str:
    """Returns ``row`` as a line of JSON, with its answer in the format of the service."""
    found = row.prediction
    top, indices = ((), ()) if found is None else (found.top, found.indices)
    predictions: list[dict[str, Any]] = [
        {"label": label, "index": index, "score": score}
        for (label, score), index in zip(top, indices, strict=True)
    ]
    fields: dict[str, Any] = {"path": row.path}
    if form.several:
        fields["labels"] = [] if found is None else list(found.labels)
        for each in predictions:
            each["threshold"] = form.answering.thresholds[each["index"]]
    elif form.abstains:
        fields["label"] = found.labels[0] if found and found.labels else None
        fields["reason"] = _reason(row)
    fields |= {"predictions": predictions, "error": row.error}
    return json.dumps(fields, ensure_ascii=False)


def _reason(row: Row) -> str | None:
    """Returns why ``row`` has no class, though it was classified; None if it has one."""
    return UNSURE if row.prediction and not row.prediction.labels else None


def columns(form: Form) -> list[str]:
    """Returns the column names of a table with such rows."""
    if form.several:
        return ["path", "labels", "scores", "error"]
    more = [f"{name}_{rank}" for rank in range(2, form.top_k + 1) for name in ("label", "score")]
    return ["path", "label", "score", *more, *(["reason"] if form.abstains else []), "error"]


def cells(row: Row, form: Form) -> list[Any]:
    """Returns the cells of ``row`` for :func:`columns`; None for empty ones.

    Several labels and their scores are lists.
    """
    found = row.prediction
    top = () if found is None else found.top
    if form.several:
        had = [] if found is None else [pair for pair in top if pair[0] in found.labels]
        labels, scores = [label for label, _ in had], [score for _, score in had]
        return [row.path, *((None, None) if found is None else (labels, scores)), row.error]
    pairs: list[Any] = [cell for pair in top for cell in pair]
    if reason := _reason(row):
        pairs[0] = None
    more = [None] * (2 * form.top_k - len(pairs))
    return [row.path, *pairs, *more, *([reason] if form.abstains else []), row.error]


def write_csv(file: IO[bytes], rows: Iterable[Row], form: Form) -> None:
    """Writes ``rows`` as CSV in UTF-8, with a header line."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(form))
    writer.writerows(map(_joined, cells(row, form)) for row in rows)
    text.detach()


def _joined(cell: Any) -> Any:
    return SEPARATOR.join(map(str, cell)) if isinstance(cell, list) else cell


def write_json_lines(file: IO[bytes], rows: Iterable[Row], form: Form) -> None:
    """Writes ``rows`` as JSON Lines in UTF-8."""
    file.writelines(f"{json_line(row, form)}\n".encode() for row in rows)


def parquet_schema(form: Form) -> Any:
    """Returns the schema of the Parquet file of rows; several labels of one are a list."""
    import pyarrow

    texts, numbers = pyarrow.string(), pyarrow.float64()
    lists = {"labels": pyarrow.list_(texts), "scores": pyarrow.list_(numbers)}
    kinds = {
        name: lists.get(name, numbers if name.startswith("score") else texts)
        for name in columns(form)
    }
    return pyarrow.schema(list(kinds.items()))


def record_batch(rows: Sequence[Row], form: Form) -> Any:
    """Returns ``rows``, at least one, as a record batch of :func:`parquet_schema`."""
    import pyarrow

    schema = parquet_schema(form)
    table = zip(*(cells(row, form) for row in rows), strict=True)
    arrays = [pyarrow.array(each, kind) for each, kind in zip(table, schema.types, strict=True)]
    return pyarrow.record_batch(arrays, schema)


def write_parquet(file: IO[bytes], rows: Iterable[Row], form: Form) -> None:
    """Writes ``rows`` as Parquet with the columns of the CSV file; empty cells are null."""
    import pyarrow.parquet

    schema = parquet_schema(form)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_batch(record_batch(group, form))


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
