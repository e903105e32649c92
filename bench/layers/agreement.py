"""Checks that profiled layers explain the call that is shown of them.

A profile is of kernels of some microseconds each, which other work on the machine seldom
interrupts; a call of a thousand of them is interrupted more often. So on a busy machine the kernels
of a call may add up to a tenth of it, and then they explain nothing.
"""

from __future__ import annotations

from bench.latency.rows import Row, p50
from bench.layers.layers import LayerTimes
from report.format import ms, percent

AGREES = 0.25  # how much longer the one may be than the other
_BINDING = (
    2e-4  # seconds of a call that are no kernel's: Python and the runtime, see bench.timer.binding
)


def doubt(times: LayerTimes, row: Row | None = None) -> str | None:
    """Returns in words why ``times`` do not explain a call, or None where they do.

    Args:
        times: layers, and the calls that took turns with the profiled ones.
        row: the same graph in the same setting, as the report shows it; None where it does not.
    """
    kernels, call = times.seconds, times.call.p50
    limit = f"more than {percent(AGREES, decimals=0)} apart"
    if kernels > (1 + AGREES) * call or call - _BINDING > (1 + AGREES) * kernels:
        return (
            f"its kernels add up to {ms(kernels)} ms, and calls interleaved with the profiled ones "
            f"took {ms(call)} ms: {limit}, as on a busy machine"
        )
    if row is None:
        return None
    if row.sha256 != times.sha256:
        return "another graph of that name was profiled"
    if max(call / p50(row), p50(row) / call) > 1 + AGREES:
        return (
            f"a call took {ms(call)} ms when it was profiled, and {ms(p50(row))} ms when it was "
            f"measured: {limit}"
        )
    return None
