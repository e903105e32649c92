"""Many images on many machines: Ray Data hands out their places, an actor per node answers."""

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
from predict.sinks import parquet_schema, record_batch
from predict.sources import item_at

_BLOCK = 500  # images, which are done again if their worker dies
_REMEDY = "Ray needs the extra for it: pip install '.[ray]'"


class Worker:
    """An actor of Ray: the artifact, opened on its node, for blocks of places.

    Args:
        files: the files of the artifact by name, so that no node needs to have them.
        options: of :meth:`predict.classifier.Classifier.open`.
        top_k: classes in a row.
    """

    def __init__(self, files: Mapping[str, bytes], options: Mapping[str, Any], top_k: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pocketnets-")
        for name, data in files.items():
            Path(self._folder.name, name).write_bytes(data)
        self._classifier = Classifier.open(self._folder.name, **options)
        self._top_k = top_k

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
        outcomes = classify(self._classifier, items, top_k=self._top_k)
        batch = record_batch([outcome.row for outcome in outcomes], self._top_k)
        return pyarrow.Table.from_batches([batch], parquet_schema(self._top_k))


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
    """Returns how many images there were, and how many failed; ``out`` now holds their rows.

    Args:
        items: each with a ``place`` that all nodes can read.
        out: a folder on a file system that all nodes share; it appears whole, with Parquet files.
        artifact: the folder of the artifact, on this machine.
        options: of :meth:`predict.classifier.Classifier.open`, but ``threads``.
        top_k: classes in a row.
        address: of the cluster; None is what RAY_ADDRESS says, else a new one on this machine.
        gpu: whether each actor needs a GPU.

    Raises:
        UserError: an item without a place, no Ray, or what it says of a run that failed.
    """
    try:
        import pyarrow.compute
        import pyarrow.dataset
        import ray
        import ray.data
    except ImportError:
        raise UserError(_REMEDY) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # each step of each run otherwise
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
            # The actors hold all cores: what writes may not wait for one.
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
    """Returns how many cores an actor has, and how many actors there are in a cluster."""
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
