"""``pocketnets bench device``: measures artifacts on a phone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.device.adb import LIST, Adb, DryAdb, PhoneLost, find_phone
from bench.device.measure import Measured, Wish, candidates, measure_device, rehearse
from bench.device.phone import Cluster, Cooling, check_names, read_phone, read_state
from bench.device.record import FILE, write_turns
from bench.device.sections import show_phone
from bench.device.tools import TOOLS, abi_of, check_tool
from bench.experiment import this_machine
from bench.latency.plan import GridFlags, PlanFlags
from bench.latency.record import set_aside, write_sweep
from core.cli import notes
from core.conditions import now
from core.errors import UserError

_WARMER = 5.0  # degrees Celsius above the temperature at the start of the run


@dataclass(frozen=True, kw_only=True)
class Device(GridFlags, PlanFlags):
    """Measure artifacts on a phone through adb, with the benchmark tools of the runtimes.

    Each tool is a program for Android, given by its path; without it, artifacts of its format are
    listed as not measured. docs/phone.md says where to get the tools. A turn is a process on the
    phone.
    """

    adb: tuple[str, ...] = ()
    """Serial number of the phone, as in `adb devices`; the only connected one if left out."""
    model: str | None = None
    """Only this network; all if left out."""
    benchmark_model: Path | None = None
    """LiteRT's tool: times .tflite files."""
    onnxruntime_perf_test: Path | None = None
    """ONNX Runtime's tool: times ONNX graphs."""
    benchncnn: Path | None = None
    """ncnn's tool: times .param files, with made-up weights."""
    executor_runner: Path | None = None
    """ExecuTorch's tool, built with its log: times .pte files."""
    libraries: tuple[Path, ...] = ()
    """Shared libraries that these tools load."""
    cores: tuple[str, ...] = ("big",)
    """Clusters of cores to run on, each measured separately: big, middle, little."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes."""
    threads: tuple[int, ...] = (1,)
    """CPU threads inside one call; each of several numbers is measured."""
    cool: float | None = None
    """Highest temperature of the processor at the start of a turn, in degrees Celsius; if left
    out, 5 more than at the start of the run, so let the phone cool down first."""
    patience: float = 120.0
    """Seconds to wait for that; after them the turn begins anyway, and the report counts it."""
    all: bool = False
    """Print all rows and sentences of the report, even if they do not fit a screen."""
    dry_run: bool = False
    """Print the commands for the phone without running them: of each candidate the first turn,
    which the others repeat with other numbers of calls."""

    def __call__(self) -> int | None:
        """Measures, writes the report, and prints a table and the path of the report.

        Returns 1 if nothing could be measured.
        """
        if len(self.adb) > 1:
            raise UserError(f"--adb is {' '.join(self.adb)}: it takes one phone at a time")
        if min(*self.batches, *self.threads, 1) < 1 or not (self.batches and self.threads):
            raise UserError(
                f"batches are {list(self.batches)}, threads {list(self.threads)}: "
                "each must be at least 1"
            )
        check_names(self.cores)
        plan = self.plan()
        wish = self.wish()
        serial = self.adb[0] if self.adb else None
        if self.dry_run:
            unknown = this_machine()
            machines = {Cluster(name=name, cores=(), mhz=None): unknown for name in self.cores}
            staging = self.out / "phone" / "inputs"
            found = candidates(wish, machines, now())
            print(shlex.join(LIST))
            rehearse(DryAdb(serial or "SERIAL"), found, wish, staging)
            notes().print(
                f"Of each candidate this is the first turn; {plan.rounds} follow in random order, "
                "with as many calls as the time of the first tells.",
                soft_wrap=True,
            )
            return None
        for form, path in wish.tools.items():
            abi_of(TOOLS[form], path)  # said before a phone is looked for
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
        return None if any(sweep.measured() for sweep in measured.sweeps.values()) else 1

    def wish(self) -> Wish:
        """Returns what to measure, with the given tools."""
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
        """Returns the condition for the start of a turn."""
        celsius = self.cool
        if celsius is None:
            idle = read_state(adb, clusters[0]).celsius
            celsius = None if idle is None else idle + _WARMER
        return Cooling(celsius=celsius, patience=self.patience)
