"""How the figures of a sweep were measured, and on what machine, for its report."""

from __future__ import annotations

from statistics import median

from bench.latency.record import Sweep
from core.conditions import Conditions

# Standard deviation over mean above which a row is marked as noisy: its tail is due to the machine.
NOISY = 0.25


def described(sweep: Sweep) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns the properties of the machine as (name, value), and how it was measured."""
    return _facts(sweep), method(sweep)


def method(sweep: Sweep) -> list[str]:
    """Returns how the figures were measured, in sentences."""
    plan = sweep.plan
    return [
        "Latency is seconds per call, by wall clock, from uint8 pixels on the host to float32 "
        "logits on the host; shown in ms. The pixels are the artifact's golden images, repeated "
        f"to fill a batch. Inside one call: {counted(sweep.threads(), 'thread')} of the CPU.",
        "Before it is timed, a candidate must reproduce the artifact's golden answers. Nothing "
        "falls back to another runtime: what cannot run is listed with its reason.",
        f"All candidates take turns: {plan.rounds} rounds, a new random order in each (seed "
        f"{plan.seed}). A turn is two untimed calls, then timed ones; at least {plan.count} "
        f"samples and {plan.seconds:g} s per candidate in all, but a slow one stops at "
        f"{plan.limit:g} s with fewer: the column Calls counts them. Before the first round each "
        "is called until the median of five calls is no longer 5 % below that of the five before, "
        f"or for {plan.warmup_seconds:g} s."
        + (f" What ties for the fastest takes up to {plan.extra} more rounds." * bool(plan.extra)),
        "p50, p95 and p99 are percentiles of all raw samples, none dropped. The interval is a "
        "95 % bootstrap interval of p50 that draws whole turns. Two candidates whose intervals "
        "overlap are a tie. A row is noisy where the standard deviation exceeds "
        f"{NOISY * 100:g} % of the mean.",
        *_cpu_times(sweep),
        "x faster: p50 of torch eager over p50 of the row at the same batch size, turn by turn: "
        "the median, and the least and the greatest of the turns. Only rows of one run are divided "
        "by each other, as a machine is faster in one run than in another. "
        "GMACs/s is MACs per image x batch / p50: the rate that was reached. MACs are those of the "
        "fp32 network; FLOPs = 2 x MACs. On a CPU, OpenVINO computes fp32 and int8 graphs in fp32 "
        "where they are not quantised (never bfloat16), and ONNX Runtime has no fp16 "
        "convolutions: it converts an fp16 graph to fp32 as it runs. LiteRT restores weights that "
        "are stored in fp16 to fp32 as it loads them. ncnn has no batches: it runs their images "
        "one by one, each in a thread.",
        "Top-1 is measured on the artifact itself, on images it was not trained on.",
    ]


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    machine = sweep.machine
    memory = "unknown" if machine.memory is None else f"{machine.memory / 2**30:.1f} GiB"
    gpu = f"{machine.gpu}, driver {machine.driver}" if machine.gpu else "none found"
    before, after = sweep.before, sweep.after
    return [
        ("Processor", f"{machine.cpu}, {machine.cores} usable cores"),
        ("Memory", memory),
        ("GPU", gpu),
        ("System", f"{machine.os}, kernel {machine.kernel}"),
        ("Frequency governor", machine.governor or "not shown by the system"),
        ("Load average before and after", f"{_load(before)}; {_load(after)}"),
        ("Clock before and after", f"{_clock(before)}; {_clock(after)}"),
        ("Versions", ", ".join(f"{name} {value}" for name, value in machine.versions.items())),
        ("Measured", f"{before.when} to {after.when}{_reused(sweep)}"),
    ]


def counted(values: list[int], noun: str) -> str:
    """Returns numbers with what they count, such as ``1, 2 threads``."""
    return f"{', '.join(map(str, values))} {noun}{'s' if values != [1] else ''}"


def _cpu_times(sweep: Sweep) -> list[str]:
    """Returns the sentence on what decides between rows of one thread; none if CPU times lack."""
    times = [row.latency for row in sweep.measured() if row.latency and row.latency.cpu_time]
    if not times:
        return []
    waited = median(time.p50 / time.cpu_time.p50 for time in times if time.cpu_time)
    return [
        "Where one thread of a CPU computes, the CPU time of each call is kept, too. It decides "
        "ties, picks and ratios among such rows, as it hardly depends on what else the machine "
        f"does; p50 by wall clock is {waited:.2f} times p50 of CPU time here, in the median row."
    ]


def _load(state: Conditions) -> str:
    load = state.load_average
    return "unknown" if load is None else " / ".join(f"{x:.2f}" for x in load)


def _clock(state: Conditions) -> str:
    clocks = [
        f"{kind} {mhz:,.0f} MHz"
        for kind, mhz in (("CPU", state.cpu_mhz), ("GPU", state.gpu_mhz))
        if mhz is not None
    ]
    return ", ".join(clocks) or "not shown by the system"


def _reused(sweep: Sweep) -> str:
    """Returns how many rows are of earlier runs, not interleaved with the last; empty if none."""
    earlier = sorted(row.when for row in sweep.measured() if row.when < sweep.before.when)
    if not earlier:
        return ""
    return f"; {len(earlier)} of {len(sweep.measured())} rows in earlier runs, from {earlier[0]} on"
