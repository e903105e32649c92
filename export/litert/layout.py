"""Which axis of an ONNX tensor lies where in TFLite's: images there have their channels last.

An order names, for each axis of a tensor as it is stored, the axis of ONNX's tensor that it is. So
a Transpose moves nothing: it renames axes, until an operator wants them in another order.
"""

from __future__ import annotations

from math import prod

from export.litert.writer import BATCH, Shape

Order = tuple[int, ...]
CHANNELS_LAST: Order = (0, 2, 3, 1)  # of (N, C, H, W)


def in_order(order: Order) -> Order:
    """Returns the order of a tensor of as many axes that is stored as ONNX has it."""
    return tuple(range(len(order)))


def stored(shape: Shape, order: Order) -> Shape:
    """Returns the shape of a tensor as it is stored."""
    return tuple(shape[axis] for axis in order)


def transposed(order: Order, permutation: Order) -> Order:
    """Returns the order of what ONNX's Transpose makes of a tensor, where nothing is moved."""
    return tuple(permutation.index(axis) for axis in order)


def reshaped(before: Shape, after: Shape, order: Order) -> tuple[Order, Order] | None:
    """Returns how a tensor is reshaped where it lies.

    Both shapes fall into groups of neighbours with the same product. Each group stays where it is,
    so where the axes of one of ``before`` are side by side and in turn, its values are as well.

    Args:
        before: ONNX's shape.
        after: likewise.
        order: of the tensor.

    Returns:
        The order that it has to be brought to first, and that of the result; None where the batch
        is not the first axis of both, alone.
    """
    groups = _groups(before, after)
    if groups is None:
        return None
    places = {axis: place for place, axis in enumerate(order)}
    # Each group lies where the first of its axes lies that is longer than one.
    lies = []
    for sources, targets in groups:
        long = [axis for axis in sources if before[axis] != 1] or sources
        lies.append((min(places[axis] for axis in long), sources, targets))
    lies.sort()
    wanted = tuple(axis for _, sources, _ in lies for axis in sources)
    result = tuple(axis for _, _, targets in lies for axis in targets)
    if [axis for axis in order if before[axis] != 1] == [a for a in wanted if before[a] != 1]:
        wanted = order  # nothing moves but axes of length one
    return wanted, result


def _groups(before: Shape, after: Shape) -> list[tuple[Shape, Shape]] | None:
    """Returns the axes of ``before`` and of ``after`` that hold the same values, group by group."""
    if (before[0], after[0]) != (BATCH, BATCH) or prod(before[1:]) != prod(after[1:]):
        return None
    groups: list[tuple[Shape, Shape]] = [((0,), (0,))]
    i = j = 1
    while i < len(before) or j < len(after):
        first, second = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while prod(before[first:i]) != prod(after[second:j]):
            if prod(before[first:i]) < prod(after[second:j]):
                i += 1
            else:
                j += 1
        while i < len(before) and before[i] == 1 and (j == len(after) or after[j] != 1):
            i += 1
        while j < len(after) and after[j] == 1 and (i == len(before) or before[i] != 1):
            j += 1
        groups.append((tuple(range(first, i)), tuple(range(second, j))))
    return groups
