"""Properties and state of a phone: clusters of cores, clocks and temperature."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from bench.device.adb import Adb
from core.conditions import Conditions, now
from core.errors import UserError, closest
from core.machine import Machine
from report.format import one_line

_CPU = "/sys/devices/system/cpu"
_EACH = f"{_CPU}/cpu[0-9]*"
PROPERTIES = "getprop"
KERNEL = "uname -r"
MEMORY = "cat /proc/meminfo"
CORES = (
    f"cat {_CPU}/online; grep -H . {_EACH}/cpufreq/cpuinfo_max_freq {_EACH}/cpu_capacity "
    f"{_EACH}/cpufreq/scaling_governor 2>/dev/null; true"
)
STATE = (
    f"cat /proc/loadavg; grep -H . {_EACH}/cpufreq/scaling_cur_freq "
    f"{_EACH}/cpufreq/scaling_max_freq /sys/class/thermal/thermal_zone*/type "
    "/sys/class/thermal/thermal_zone*/temp 2>/dev/null; dumpsys thermalservice 2>/dev/null; true"
)
QUESTIONS = (PROPERTIES, KERNEL, MEMORY, CORES, STATE)  # read-only commands
_ZONE = re.compile(r"cpu|soc|cluster|big|mid|lit", re.IGNORECASE)  # zones of the processor
_NOT_ZONE = re.compile(r"gpu|batt|skin|usb|charg|step|modem|lowf", re.IGNORECASE)
_NUMBER = r"-?\d+(?:\.\d+)?"
_CORES = r"\d{1,3}(?:-\d{1,3})?"  # the number of a core, or a range of them
_WARMEST = 150.0  # degrees Celsius; higher values are not plausible


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster of equal cores.

    Attributes:
        name: ``little``, ``middle`` or ``big``; further ones between are ``middle2`` and so on.
        cores: numbers of the cores, ascending; empty in a dry run.
        mhz: maximum clock in MHz; None if unknown.
        governor: frequency governor; None if unknown.
    """

    name: str
    cores: tuple[int, ...]
    mhz: float | None
    governor: str | None = None

    @property
    def mask(self) -> str:
        """Returns the hexadecimal bit mask of the cores for ``taskset``; bit 0 is core 0.

        In a dry run, where the cores are unknown, it is a placeholder such as MASK_BIG.
        """
        if not self.cores:
            return f"MASK_{self.name.upper()}"
        return f"{sum(1 << core for core in self.cores):x}"

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.cores))
        clock = "" if self.mhz is None else f" at {self.mhz:.0f} MHz"
        return f"{self.name} (core {numbers}{clock})"


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """The state of a phone at one moment; unknown values are None.

    Attributes:
        when: UTC date and time, ISO 8601.
        load_average: mean number of runnable tasks over the last 1, 5 and 15 minutes.
        mhz: mean clock of the cluster's cores in MHz.
        cap_mhz: mean of their current clock limits in MHz, which heat lowers.
        celsius: temperature of the warmest part of the processor.
        throttling: Android's thermal status, from 0 (none) to 6 (shutdown).
    """

    when: str
    load_average: tuple[float, float, float] | None
    mhz: float | None
    cap_mhz: float | None
    celsius: float | None
    throttling: int | None

    def conditions(self) -> Conditions:
        """Returns the fields that :class:`core.conditions.Conditions` has, too."""
        return Conditions(
            when=self.when, load_average=self.load_average, cpu_mhz=self.mhz, gpu_mhz=None
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Phone:
    """The properties of a phone.

    Attributes:
        serial: serial number in adb.
        model: name of the model.
        soc: name of the system on chip.
        abis: supported ABIs, such as ``arm64-v8a``, the preferred one first.
        android: version and build of Android.
        kernel: kernel release.
        memory: main memory in bytes; None if unknown.
        clusters: clusters of its cores, the slowest first.
    """

    serial: str
    model: str
    soc: str
    abis: tuple[str, ...]
    android: str
    kernel: str
    memory: int | None
    clusters: tuple[Cluster, ...]

    @property
    def name(self) -> str:
        """Returns the name of its folder, from model and serial number."""
        return re.sub(r"[^\w.-]+", "-", f"{self.model}-{self.serial}".lower())

    def choose(self, names: Sequence[str]) -> list[Cluster]:
        """Returns the clusters with these names.

        Raises:
            UserError: the phone has no such cluster.
        """
        there = {cluster.name: cluster for cluster in self.clusters}
        for name in names:
            if name not in there:
                raise UserError(
                    f"cores are {name!r}: {closest(name, there)}; {self.model} has "
                    f"{', '.join(map(str, self.clusters))}"
                )
        return [there[name] for name in dict.fromkeys(names)]

    def machine(self, cluster: Cluster, versions: dict[str, str]) -> Machine:
        """Returns the machine of the rows that are measured on ``cluster``."""
        return Machine(
            cpu=f"{self.soc} in {self.model}: {cluster}",
            cores=len(cluster.cores),
            memory=self.memory,
            os=self.android,
            kernel=self.kernel,
            governor=cluster.governor,
            gpu=None,
            driver=None,
            versions=versions,
        )


def read_phone(adb: Adb) -> Phone:
    """Reads the properties of the phone.

    Raises:
        UserError: its cores or ABIs cannot be read.
    """
    lines = re.findall(r"^\[(.+?)\]: \[(.*)\]\s*$", adb.shell(PROPERTIES), re.MULTILINE)
    said = {name: one_line(value) for name, value in lines}
    abis = said.get("ro.product.cpu.abilist") or said.get("ro.product.cpu.abi")
    if not abis:
        raise UserError(
            f"the ABI of phone {adb.serial} cannot be read: its getprop has neither "
            "ro.product.cpu.abilist nor ro.product.cpu.abi"
        )
    memory = re.search(r"MemTotal:\s+(\d+) kB", adb.shell(MEMORY))
    chip = (said.get("ro.soc.manufacturer"), said.get("ro.soc.model"))  # since Android 12
    build = said.get("ro.build.display.id") or said.get("ro.build.id") or "unknown build"
    return Phone(
        serial=adb.serial,
        model=said.get("ro.product.model") or "unknown model",
        soc=" ".join(word for word in chip if word)
        or said.get("ro.board.platform")
        or said.get("ro.hardware")
        or "unknown chip",
        abis=tuple(filter(None, abis.split(","))),
        android=f"Android {said.get('ro.build.version.release', '?')} "
        f"(API {said.get('ro.build.version.sdk', '?')}, {build})",
        kernel=one_line(adb.shell(KERNEL)),
        memory=int(memory[1]) * 1024 if memory else None,
        clusters=_clusters(adb.shell(CORES)),
    )


def _clusters(text: str) -> tuple[Cluster, ...]:
    """Parses the output of :data:`CORES` and returns the clusters, the slowest first.

    Raises:
        UserError: the cores, their clocks or capacities cannot be read.
    """
    online = one_line(text.partition("\n")[0])
    cores: list[int] = []
    for part in online.split(",") if re.fullmatch(f"{_CORES}(?:,{_CORES})*", online) else ():
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    if not cores:
        raise _unreadable("online", online)
    clocks = _numbers_of_cores(text, "cpufreq/cpuinfo_max_freq")
    capacities = _numbers_of_cores(text, "cpu_capacity")
    governors = _of_cores(text, "cpufreq/scaling_governor")
    kinds: dict[tuple[float, float], list[int]] = {}
    for core in cores:
        kind = (capacities.get(core, 0), clocks.get(core, 0) / 1000)
        kinds.setdefault(kind, []).append(core)
    return tuple(
        Cluster(
            name=name,
            cores=tuple(sorted(kinds[kind])),
            mhz=kind[1] or None,
            governor=governors.get(kinds[kind][0]),
        )
        for name, kind in zip(_names(len(kinds)), sorted(kinds), strict=True)
    )


def check_names(names: Sequence[str]) -> None:
    """Raises UserError for a name that no cluster of any phone has."""
    for name in names:
        if not re.fullmatch(r"little|middle\d*|big", name):
            raise UserError(f"cores are {name!r}: {closest(name, ('big', 'middle', 'little'))}")


def _names(count: int) -> list[str]:
    middle = [f"middle{number or ''}" for number in (0, *range(2, count))][: max(0, count - 2)]
    return [*(["little"] if count > 1 else []), *middle, *(["big"] if count else [])]


def _of_cores(text: str, name: str) -> dict[int, str]:
    """Returns core to value of the files ``name`` in the output of ``grep -H``."""
    found = re.findall(rf"^{_CPU}/cpu(\d+)/{name}:(.*)$", text, re.MULTILINE)
    return {int(core): one_line(value) for core, value in found}


def _numbers_of_cores(text: str, name: str) -> dict[int, float]:
    """Returns the same as numbers; raises UserError for a value that is none."""
    values = _of_cores(text, name)
    for core, value in values.items():
        if not value.isdecimal():
            raise _unreadable(f"cpu{core}/{name}", value)
    return {core: float(value) for core, value in values.items()}


def _unreadable(file: str, value: str) -> UserError:
    return UserError(f"the cores of the phone cannot be read: {_CPU}/{file} is {value!r}")


def read_state(adb: Adb, cluster: Cluster) -> State:
    """Reads the state of the phone, with the clocks of ``cluster``."""
    text = adb.shell(STATE)
    load = re.match(rf"({_NUMBER}) ({_NUMBER}) ({_NUMBER}) ", text)
    status = re.search(r"^Thermal Status: (\d)\b", text, re.MULTILINE)
    return State(
        when=now(),
        load_average=(float(load[1]), float(load[2]), float(load[3])) if load else None,
        mhz=_mean(_of_cores(text, "cpufreq/scaling_cur_freq"), cluster),
        cap_mhz=_mean(_of_cores(text, "cpufreq/scaling_max_freq"), cluster),
        celsius=_celsius(text),
        throttling=int(status[1]) if status else None,
    )


def _mean(khz: dict[int, str], cluster: Cluster) -> float | None:
    values = [float(khz[core]) / 1000 for core in cluster.cores if khz.get(core, "").isdecimal()]
    return mean(values) if values else None


def _celsius(text: str) -> float | None:
    """Returns the highest temperature of the processor; None if unknown.

    Android's own value is preferred, as the names of thermal zones depend on the vendor. A zone
    whose value is no number is left out.
    """
    current = text.partition("Current temperatures from HAL:")[2]
    current = current.partition("Current cooling devices")[0]
    told = re.findall(rf"Temperature\{{mValue=({_NUMBER}), mType=0,", current)  # 0: CPU
    warm = [float(value) for value in told]
    if not warm:
        zone = r"^/sys/class/thermal/(thermal_zone\d+)/"
        names = dict(re.findall(rf"{zone}type:(.*)$", text, re.MULTILINE))
        for number, value in re.findall(rf"{zone}temp:({_NUMBER})\s*$", text, re.MULTILINE):
            name = names.get(number, "")
            if _ZONE.search(name) and not _NOT_ZONE.search(name):
                degrees = float(value)
                warm.append(degrees / 1000 if abs(degrees) > _WARMEST else degrees)
    likely = [degrees for degrees in warm if 0 < degrees < _WARMEST]
    return max(likely) if likely else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cooling:
    """The condition for the start of a turn.

    Attributes:
        celsius: highest temperature of the processor; None if it cannot be read.
        patience: seconds to wait; after them the turn begins anyway and is marked.
        pause: seconds between two checks.
    """

    celsius: float | None
    patience: float = 120.0
    pause: float = 2.0

    def allows(self, state: State) -> bool:
        """Returns whether the phone is cool enough and not throttled by Android."""
        warm = (
            self.celsius is not None and state.celsius is not None and state.celsius > self.celsius
        )
        return not warm and not state.throttling

    def wait(self, adb: Adb, cluster: Cluster) -> tuple[State, float]:
        """Waits until a turn may begin; returns the last state and the seconds waited."""
        began = time.monotonic()
        while True:
            state = read_state(adb, cluster)
            waited = time.monotonic() - began
            if self.allows(state) or waited >= self.patience:
                return state, waited
            time.sleep(self.pause)
