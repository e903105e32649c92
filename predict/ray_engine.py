"""Classifies images on a Ray cluster: Ray Data distributes paths, an actor per node classifies."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import UserError, in_words
from core.files import staged
from predict.classifier import Classifier
from predict.pipeline import Item, classify, failed_item
from predict.sinks import Form, parquet_schema, record_batch
from predict.sources import item_at

_BLOCK = 500  # images per block, which is repeated if its worker dies
_REMEDY = "Ray needs the extra for it: pip install '.[ray]'"


class Worker:
    """A Ray actor that opens the artifact on its node and classifies blocks of items.

    Args:
        files: files of the artifact by name, so that nodes need no copy.
        options: options of :meth:`predict.classifier.Classifier.open`.
        top_k: number of classes in a row.
    """

    def __init__(self, files: Mapping[str, bytes], options: Mapping[str, Any], top_k: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pocketnets-")
        for name, data in files.items():
            Path(self._folder.name, name).write_bytes(data)
        self._classifier = Classifier.open(self._folder.name, **options)
        self._form = Form(top_k, self._classifier.answering)

    def __call__(self, block: Any) -> Any:
        """Returns a table with a row for each of ``block``, a table of items."""
        import pyarrow

        most = self._classifier.limits.max_bytes
        items = (
            failed_item(each["path"], each["reason"])
            if each["reason"]
            else item_at(each["place"], most, shown=each["path"])
            for each in block.to_pylist()
        )
        outcomes = classify(self._classifier, items, top_k=self._form.top_k)
        batch = record_batch([outcome.row for outcome in outcomes], self._form)
        return pyarrow.Table.from_batches([batch], parquet_schema(self._form))


def predict_on_cluster(
    items: Iterable[Item],
    out: Path,
    artifact: Path,
    options: Mapping[str, Any],
    top_k: int,
    *,
    address: str | None = None,
    gpu: bool = False,
) -> tuple[int, int]:
    """Classifies ``items`` and writes rows to ``out``; returns the numbers of images and failures.

    Args:
        items: items, each with a ``place`` that all nodes can read.
        out: folder for Parquet files on a file system that all nodes share; it appears atomically.
        artifact: folder of the artifact on this machine.
        options: options of :meth:`predict.classifier.Classifier.open`, except ``threads``.
        top_k: number of classes in a row.
        address: address of the cluster; None for RAY_ADDRESS, else a new one on this machine.
        gpu: whether each actor needs a GPU.

    Raises:
        UserError: an item without a place, Ray is not installed, or the run failed.
    """
    try:
        import pyarrow.compute
        import pyarrow.dataset
        import ray
        import ray.data
    except ImportError:
        raise UserError(_REMEDY) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # otherwise it logs every step
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ConnectionError, RuntimeError, ...
        raise UserError(f"--address {address}: no Ray cluster there ({in_words(error)})") from error
    try:
        blocks: list[Any] = [ray.put(block) for block in _blocks(items)]
        if not blocks:
            raise UserError("no images in these sources")
        cores, actors = _actors(ray.nodes(), gpu=gpu)
        files = {file.name: file.read_bytes() for file in artifact.iterdir() if file.is_file()}
        with staged(out.absolute()) as folder:  # the nodes may be elsewhere
            dataset = ray.data.from_arrow_refs(blocks).map_batches(
                Worker,
                fn_constructor_kwargs={
                    "files": files,
                    "options": {**options, "threads": cores},
                    "top_k": top_k,
                },
                batch_format="pyarrow",
                batch_size=None,
                num_cpus=cores,
                num_gpus=1 if gpu else 0,
                compute=ray.data.ActorPoolStrategy(size=actors),
            )
            # The actors reserve all cores, so writing must not require one.
            dataset.write_parquet(str(folder), ray_remote_args={"num_cpus": 0})
            written = sorted(map(str, folder.glob("*.parquet")))
            rows = pyarrow.dataset.dataset(written)
            failed = rows.count_rows(filter=pyarrow.compute.field("error").is_valid())
            return rows.count_rows(), failed
    except UserError:
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray could not finish ({in_words(error)})") from error
    finally:
        ray.shutdown()


def _blocks(items: Iterable[Item]) -> Iterator[Any]:
    import pyarrow

    source = iter(items)
    while part := list(islice(source, _BLOCK)):
        for item in part:
            if not (item.place or item.reason):
                raise UserError(
                    f"{item.path}: other machines cannot read that; with --engine ray, name files, "
                    "folders, lists or addresses, not archives"
                )
        columns = {
            "path": [item.path for item in part],
            "place": [item.place for item in part],
            "reason": [item.reason for item in part],
        }
        yield pyarrow.table(columns)


def _actors(nodes: Iterable[Mapping[str, Any]], *, gpu: bool) -> tuple[int, int]:
    """Returns the number of cores per actor, and of actors in a cluster."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if gpu:
        count = sum(int(each.get("GPU", 0)) for each in alive)
        if not count:
            raise UserError("no node of the Ray cluster has a GPU, which the runtime needs")
        return min(int(each["CPU"] / each["GPU"]) or 1 for each in alive if each.get("GPU")), count
    cores = [int(each["CPU"]) for each in alive if each.get("CPU", 0) >= 1]
    if not cores:
        raise UserError("no node of the Ray cluster has a core to spare")
    return min(cores), sum(count // min(cores) for count in cores)
