from __future__ import annotations

import numpy as np
import pytest

from export.litert.layout import CHANNELS_LAST, Order, in_order, reshaped, stored, transposed
from export.litert.writer import BATCH, Shape


def as_stored(values: np.ndarray, order: Order) -> np.ndarray:
    return values.transpose(order)


def as_onnx(values: np.ndarray, order: Order) -> np.ndarray:
    return values.transpose(np.argsort(order))


def sized(shape: Shape) -> Shape:
    return tuple(5 if size == BATCH else size for size in shape)


@pytest.mark.parametrize(
    ("before", "after", "order", "moves"),
    [
        # A channel shuffle splits what lies last.
        ((BATCH, 6, 4, 4), (BATCH, 2, 3, 4, 4), CHANNELS_LAST, False),
        ((BATCH, 2, 3, 4, 4), (BATCH, 6, 4, 4), (0, 3, 4, 1, 2), False),
        ((BATCH, 3, 2, 4, 4), (BATCH, 6, 4, 4), (0, 3, 4, 2, 1), True),
        # What has one pixel is flat already; what has more lies otherwise than ONNX has it.
        ((BATCH, 6, 1, 1), (BATCH, 6), CHANNELS_LAST, False),
        ((BATCH, 6), (BATCH, 6, 1, 1), (0, 1), False),
        ((BATCH, 6, 2, 2), (BATCH, 24), CHANNELS_LAST, True),
        ((BATCH, 6, 2, 2), (BATCH, 6, 4), CHANNELS_LAST, False),
        ((BATCH, 1, 6, 1), (BATCH, 1, 2, 3), in_order((0, 1, 2, 3)), False),
        ((BATCH, 1, 1), (BATCH, 1, 1, 1), (0, 2, 1), False),
    ],
)
def test_a_reshape_where_it_lies_is_the_one_of_onnx(
    before: Shape, after: Shape, order: Order, moves: bool
) -> None:
    found = reshaped(before, after, order)
    assert found is not None
    wanted, result = found
    assert (wanted != order) == moves
    values = np.arange(np.prod(sized(before))).reshape(sized(before))
    lying = as_stored(values, wanted)
    made = as_onnx(lying.reshape(stored(sized(after), result)), result)
    np.testing.assert_array_equal(made, values.reshape(sized(after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((BATCH, 4, 4), (4, BATCH, 4)),  # moved
        ((BATCH, 4), (16, BATCH)),
        ((BATCH, 4), (BATCH, 5)),
        ((4, 4), (16,)),  # none
    ],
)
def test_what_touches_the_batch_is_not_reshaped(before: Shape, after: Shape) -> None:
    assert reshaped(before, after, in_order(before)) is None


def test_a_transpose_renames_axes() -> None:
    values = np.arange(5 * 6 * 4 * 3).reshape(5, 6, 4, 3)
    order, permutation = (0, 2, 3, 1), (0, 3, 1, 2)
    moved = as_onnx(as_stored(values, order), transposed(order, permutation))
    np.testing.assert_array_equal(moved, values.transpose(permutation))
