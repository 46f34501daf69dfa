"""The sizes of batch that graphs are captured for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runner.gpu.buckets import Bucket, Buckets


@given(st.data(), st.integers(1, 1200), st.integers(1, 5000), st.booleans())
def test_everything_fits_and_kinds_of_steps_are_told_apart(
    data: st.DataObject, max_rows: int, more_tokens: int, logprobs: bool
) -> None:
    max_tokens = max_rows + more_tokens
    num_rows = data.draw(st.integers(1, max_rows))
    num_tokens = data.draw(st.integers(num_rows, max_tokens))
    bucket = Buckets(max_rows, max_tokens).find(num_rows, num_tokens, logprobs)
    assert num_rows <= bucket.num_rows <= max_rows and num_tokens <= bucket.num_tokens <= max_tokens
    assert (bucket.num_tokens > bucket.num_rows) is (num_tokens > num_rows)
    assert bucket.logprobs is logprobs


@pytest.mark.parametrize(
    ("num_rows", "num_tokens", "expected"),
    [
        (10, 13, Bucket(16, 15)),
        (31, 32, Bucket(32, 31)),
        (250, 300, Bucket(320, 256)),
        (265, 512, Bucket(512, 511)),
        (300, 300, Bucket(320, 320)),
        (390, 390, Bucket(512, 512)),
        (3, 400, Bucket(512, 8)),
    ],
)
def test_rows_do_not_make_a_step_larger(num_rows: int, num_tokens: int, expected: Bucket) -> None:
    assert Buckets(1024, 4096).find(num_rows, num_tokens) == expected
