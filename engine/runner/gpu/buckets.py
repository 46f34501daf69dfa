"""The sizes of batch that graphs are captured for: few, and never much larger than what has to be computed."""

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """A step's upper bounds. As many tokens as rows: no row computes more than one."""

    num_tokens: int
    num_rows: int
    logprobs: bool = False  # a row wants log probabilities


@dataclass(frozen=True, slots=True)
class EncoderBucket:
    """An encoder's step's upper bounds."""

    num_tokens: int
    num_inputs: int
    num_picked: int = 0  # tokens that a head fills masks of


class Buckets:
    """All of them. max_tokens is more than max_rows: a bucket for rows of several tokens always has more tokens than rows."""

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        assert max_tokens > max_rows, f"{max_tokens} tokens, {max_rows} rows"
        # cuBLAS takes longer for 448 tokens than for 512, and as long for any from 513 to 640, of a Llama-3-8B's products on an H100.
        self._rows = _up_to(
            max_rows, (1, 2, 4, 8), ((8, 64), (16, 128), (32, 256), (64, 384), (128, 1 << 16))
        )
        self._mixed_rows = _up_to(max_rows, (8, 32, 128), ((256, 1 << 16),))
        self._tokens = _up_to(
            max_tokens, (16, 32), ((32, 128), (64, 384), (128, 2048), (256, 1 << 13), (1024, 1 << 20))
        )

    def find(self, num_rows: int, num_tokens: int, logprobs: bool = False) -> Bucket:
        """The smallest that holds so many live rows and tokens; more tokens than rows: some row computes several."""
        if num_tokens <= num_rows:
            rows = _round_up(num_rows, self._rows)
            return Bucket(rows, rows, logprobs)
        tokens = _round_up(num_tokens, self._tokens)
        return Bucket(tokens, min(_round_up(num_rows, self._mixed_rows), tokens - 1), logprobs)


class EncoderBuckets:
    """Tokens are what a step's time goes by, so their sizes lie close together; inputs and picked tokens cost little beside them."""

    def __init__(self, max_inputs: int, max_tokens: int) -> None:
        self.largest = EncoderBucket(max_tokens, max_inputs)
        self._inputs = _up_to(max_inputs, (1, 4, 16, 64, 256, 1024), ())
        self._picked = [1 << power for power in range(max(max_tokens - 1, 1).bit_length() + 1)]
        self._tokens = _up_to(
            max_tokens, (16, 32), ((32, 256), (64, 1024), (128, 4096), (256, 1 << 14), (1024, 1 << 24))
        )

    def find(self, num_inputs: int, num_tokens: int, num_picked: int | None = None) -> EncoderBucket:
        """The smallest that holds so much. num_picked: None where no head picks tokens."""
        picked = 0 if num_picked is None else _round_up(num_picked, self._picked)
        return EncoderBucket(_round_up(num_tokens, self._tokens), _round_up(num_inputs, self._inputs), picked)


def _up_to(limit: int, first: tuple[int, ...], steps: tuple[tuple[int, int], ...]) -> list[int]:
    """Sizes below the limit, and the limit: the first ones, then in each step's stride up to its bound."""
    sizes = list(first)
    for stride, bound in steps:
        sizes.extend(range((sizes[-1] // stride + 1) * stride, min(bound, limit) + 1, stride))
    return [size for size in sizes if size < limit] + [limit]


def _round_up(size: int, sizes: list[int]) -> int:
    return sizes[bisect_left(sizes, max(size, 1))]
