from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from core.preprocess import encode_png
from predict.pipeline import failed_item, file_item
from predict.ray_engine import Worker, _actors, _blocks

ROOT = Path(__file__).resolve().parents[2]
Put = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]

# In a process of its own: Ray starts servers, and prints and warns as it likes.
TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """Returns the address of a Ray cluster of two nodes on this machine, and its process."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", TWO_NODES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
        process.stdin.close()
        process.wait(60)


def start(address: str, artifact: Path, folder: Path) -> subprocess.Popen[str]:
    code = (
        "from core import cli; from predict import __main__, ray_engine\n"
        "ray_engine._BLOCK = 8\n"
        "cli.run(__main__.main)\n"
    )
    words = [str(artifact), "photos", "--out", "rows", "--engine", "ray", "--address", address]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words, "--top-k", "2"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_every_image_has_one_row_though_a_worker_is_killed(
    cluster: tuple[str, psutil.Process], artifact_path: Path, here: Path, put: Put
) -> None:
    import pyarrow.parquet

    address, nodes = cluster
    # So large that there is time to kill a worker while it decodes them.
    large = [encode_png(Image.new("RGB", (3000, 3000), name)) for name in ("red", "lime", "blue")]
    for number in range(160):
        put(f"photos/{number:03}.png", large[number % 3])
    put("photos/100.png", b"text")
    process = start(address, artifact_path, here)
    killed: list[int] = []

    def kill() -> None:
        """Kills the first worker that has computed for a second since it was ready."""
        begun: dict[int, float] = {}
        while process.poll() is None and not killed:
            for each in nodes.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "MapWorker" in " ".join(each.cmdline()):
                        seconds = each.cpu_times().user
                        if seconds > begun.setdefault(each.pid, seconds) + 1:
                            each.kill()
                            killed.append(each.pid)
                            return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    out, err = process.communicate()
    killer.join()
    assert process.returncode == 0, err
    assert out == "rows\n"
    assert "160 images, 1 failed" in err
    assert killed
    rows = pyarrow.parquet.read_table("rows").to_pylist()
    assert sorted(row["path"] for row in rows) == [f"photos/{n:03}.png" for n in range(160)]
    for row in rows:
        number = int(row["path"][7:10])
        expected = None if number == 100 else ("red", "green", "blue")[number % 3]
        assert row["label"] == expected
        assert (row["error"] is None) == (number != 100)


def test_an_item_that_nobody_can_read_is_a_row(artifact_path: Path, put: Put) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    file = file_item(put("a.png"), 1000)
    (block,) = _blocks([failed_item("list.csv, line 2", "it has no path"), file])
    files = {each.name: each.read_bytes() for each in artifact_path.iterdir()}
    worker = Worker(files, {"threads": 1}, 1)
    refused, red = worker(block).to_pylist()
    worker._folder.cleanup()
    assert (refused["path"], refused["error"]) == ("list.csv, line 2", "it has no path")
    assert (red["path"], red["label"], red["error"]) == (file.path, "red", None)


def test_actors_are_the_cores_of_the_smallest_node() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 1.0}},
        {"Alive": True, "Resources": {}},
    ]
    assert _actors(nodes, gpu=False) == (4, 3)
    assert _actors(nodes, gpu=True) == (4, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--engine", "ray"], "--out"),
        (["photos", "--engine", "ray", "--out", "rows.csv"], "folder"),
        (["photos", "--engine", "ray", "--out", "rows", "--resume"], "--resume"),
        (["photos", "--engine", "ray", "--out", "rows", "--copy-to", "x"], "--copy-to"),
        (["photos", "--address", "127.0.0.1:1"], "--engine ray"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(
    command: Command, artifact_path: Path, put: Put, arguments: list[str], words: str
) -> None:
    put("photos/a.png")
    ran = command("predict", str(artifact_path), *arguments)
    assert ran.returncode == 1
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
