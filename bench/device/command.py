"""``pocketnets bench device``: what artifacts cost on a phone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.device.adb import LIST, Adb, DryAdb, PhoneLost, find_phone
from bench.device.measure import Measured, Wish, candidates, measure_device, rehearse
from bench.device.phone import Cluster, Cooling, read_phone, read_state
from bench.device.record import FILE, write_turns
from bench.device.sections import show_phone
from bench.device.tools import TOOLS, check_tool
from bench.experiment import this_machine
from bench.latency.plan import GridFlags
from bench.latency.record import set_aside, write_sweep
from bench.measure.timing import Plan
from core.cli import notes
from core.conditions import now
from core.errors import UserError

_WARMER = 5.0  # degrees above what the phone has when the run begins


@dataclass(frozen=True, kw_only=True)
class Device(GridFlags):
    """Measure artifacts on a phone through adb, by the tools of its runtimes.

    Each tool is a program for Android, given by its path; without it, the formats that it runs
    are listed with that reason. docs/phone.md says where to get them.
    """

    adb: tuple[str, ...] = ()
    """Serial number of the phone, as `adb devices` tells it; the only one if left out."""
    model: str | None = None
    """Only this network; all if left out."""
    benchmark_model: Path | None = None
    """LiteRT's tool: times .tflite files."""
    onnxruntime_perf_test: Path | None = None
    """ONNX Runtime's tool: times ONNX graphs."""
    benchncnn: Path | None = None
    """ncnn's tool: times its .param files, with weights of its own."""
    executor_runner: Path | None = None
    """ExecuTorch's tool, built with its log: times .pte files."""
    libraries: tuple[Path, ...] = ()
    """Shared libraries that these tools load."""
    cores: tuple[str, ...] = ("big",)
    """Clusters to run on, each a candidate of its own: big, middle, little."""
    batches: tuple[int, ...] = (1,)
    """Images per call."""
    threads: tuple[int, ...] = (1,)
    """CPU threads inside one call; several are measured beside each other."""
    count: int = 100
    """Least number of calls of a candidate."""
    seconds: float = 3.0
    """Least sum of a candidate's calls."""
    limit: float = 3.0
    """Sum of its calls at which a slow candidate stops with fewer."""
    rounds: int = 12
    """Turns of a candidate, each a process on the phone."""
    seed: int = 0
    """Decides the order of the turns."""
    cool: float | None = None
    """A turn begins once the processor has at most so many degrees Celsius; if left out, 5 more
    than when the run began: let the phone lie for a while first."""
    patience: float = 120.0
    """Seconds to wait for that; then the turn is taken all the same, and the report counts it."""
    all: bool = False
    """Print all rows and all that the report says, where a screen has no room for them."""
    dry_run: bool = False
    """Print every command line that would reach the phone, and run none."""

    def __call__(self) -> None:
        """Measures, and prints a table and where the report is."""
        if len(self.adb) > 1:
            raise UserError(f"--adb is {' '.join(self.adb)}: it takes one phone at a time")
        if min(*self.batches, *self.threads, 1) < 1 or not (self.batches and self.threads):
            raise UserError(
                f"batches are {list(self.batches)}, threads {list(self.threads)}: "
                "each must be at least 1"
            )
        plan = Plan(
            count=self.count,
            seconds=self.seconds,
            limit=self.limit,
            rounds=self.rounds,
            seed=self.seed,
        )
        wish = self.wish()
        serial = self.adb[0] if self.adb else None
        if self.dry_run:
            unknown = this_machine()
            machines = {Cluster(name=name, cores=(), mhz=None): unknown for name in self.cores}
            staging = self.out / "phone" / "inputs"
            found = candidates(wish, machines, now())
            print(shlex.join(LIST))
            rehearse(DryAdb(serial or "SERIAL"), found, wish, staging)
            return
        adb = find_phone(serial)
        phone = read_phone(adb)
        clusters = phone.choose(self.cores)
        for form, path in wish.tools.items():
            check_tool(TOOLS[form], path, phone.abis)
        versions = wish.versions()
        machines = {cluster: phone.machine(cluster, versions) for cluster in clusters}
        found = candidates(wish, machines, now())
        folder = self.out / "phone" / phone.name
        for path in (folder / FILE, *(folder / f"{each.name}.jsonl" for each in clusters)):
            if path.exists():
                notes().print(f"{path} is of an earlier run: it is {set_aside(path).name} now")

        def save(measured: Measured) -> None:
            for name, sweep in measured.sweeps.items():
                write_sweep(sweep, folder / f"{name}.jsonl")
            write_turns(list(measured.turns), folder)

        try:
            cooling = self.cooling(adb, clusters)
            measured = measure_device(adb, machines, found, wish, plan, cooling, save=save)
        except PhoneLost as error:
            raise UserError(f"{error}; what was measured before is in {folder}") from None
        save(measured)
        show_phone(measured, folder, every=self.all)

    def wish(self) -> Wish:
        """Returns what is to be measured, and the tools that were given."""
        paths = {form: getattr(self, tool.name) for form, tool in TOOLS.items()}
        tools = {form: path for form, path in paths.items() if path is not None}
        if not tools:
            flags = ", ".join(tool.flag for tool in TOOLS.values())
            raise UserError(f"no tool is given: name at least one by its path, with {flags}")
        for path in self.libraries:
            if not path.is_file():
                raise UserError(f"--libraries {path}: no such file")
        return Wish(
            grid=self.grid(model=self.model, batches=(1,)),
            batches=self.batches,
            threads=self.threads,
            tools=tools,
            libraries=self.libraries,
        )

    def cooling(self, adb: Adb, clusters: Sequence[Cluster]) -> Cooling:
        """Returns when a turn may begin."""
        celsius = self.cool
        if celsius is None:
            idle = read_state(adb, clusters[0]).celsius
            celsius = None if idle is None else idle + _WARMER
        return Cooling(celsius=celsius, patience=self.patience)
