"""Bucketing: samples share a bucket exactly if they have the same shape."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nextscene.shards.loading.buckets import assign_buckets

SHAPES = st.tuples(st.sampled_from([1, 9, 81]), st.integers(1, 1 << 16), st.sampled_from([1, 48, 1 << 16]))


@given(st.lists(SHAPES, min_size=1, max_size=30))
def test_a_bucket_is_a_shape_and_buckets_are_in_the_order_of_shapes(shapes: list[tuple[int, int, int]]) -> None:
    order = sorted(set(shapes))
    assert assign_buckets(np.array(shapes)).tolist() == [order.index(shape) for shape in shapes]
