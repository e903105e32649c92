"""``python -m bench load``: a server under load."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.grid import Grid, find_artifacts
from bench.images import golden_images, read_images
from bench.load import send_load
from bench.table import ms
from models.cli import results


@dataclass(frozen=True, kw_only=True)
class Load:
    """Post images to a server on this machine, as fast as it answers."""

    url: str = "http://127.0.0.1:3000/predict"
    """Where to post; this machine only."""
    images: Path | None = None
    """An image, or a folder of them; the golden images of an artifact if left out."""
    artifacts: Path = Path("artifacts")
    """Where to look for those."""
    connections: int = 4
    """Requests in flight at any time."""
    count: int = 1000
    """At most this many requests."""
    seconds: float = 10.0
    """At most this long."""

    def __call__(self) -> int:
        """Prints throughput, latency and statuses; returns 1 unless every answer was a 200."""
        images = (
            golden_images(find_artifacts(Grid(artifacts=self.artifacts))[0])
            if self.images is None
            else read_images(self.images)
        )
        load = asyncio.run(
            send_load(
                self.url,
                images,
                connections=self.connections,
                count=self.count,
                seconds=self.seconds,
            )
        )
        out = results()
        out.print(
            f"{sum(load.statuses.values()):,} requests in {load.seconds:.1f} s over "
            f"{self.connections} connections, {len(images)} different images"
        )
        out.print("statuses: " + ", ".join(f"{k} x {v:,}" for k, v in load.statuses.items()))
        if load.latency:
            p50, p95, p99 = (ms(load.latency.percentile(p)) for p in (50, 95, 99))
            out.print(f"throughput: {load.throughput:,.1f} images/s")
            out.print(f"latency: p50 {p50}, p95 {p95}, p99 {p99} ms (n={load.latency.count:,})")
        return 0 if set(load.statuses) == {"200"} else 1
