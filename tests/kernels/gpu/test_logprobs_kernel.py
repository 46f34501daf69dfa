"""Log probabilities on a GPU, against the plain ones in double."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.gpu.logprobs import GpuLogprobs
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.vocab_parts import MAX_LISTED
from engine.sampler.logprobs import largest
from tests.kernels.gpu.sampling import make_logits

KINDS = ["spread", "spread", "narrow", "ties", "masked", "equal", "sorted"]
MAX_ROWS = 40
CLOSE = 2e-5  # of logits up to 20 or so


class Logprobs:
    """Keeps what it made: a launch must leave nothing behind that the next one finds."""

    def __init__(self, library: KernelLibrary) -> None:
        self.library = library
        self._made: dict[tuple[int, int], GpuLogprobs] = {}

    def get(self, vocab: int, width: int) -> GpuLogprobs:
        if (vocab, width) not in self._made:
            self._made[vocab, width] = GpuLogprobs(self.library, vocab, MAX_ROWS, width)
        return self._made[vocab, width]

    def take(
        self, logits: torch.Tensor, codes: torch.Tensor, width: int, samples: torch.Tensor, num_rows: int
    ) -> list[torch.Tensor]:
        """What it found of each row, -77 where nothing was written."""
        device = self.library.device
        logprobs = self.get(logits.shape[1], width)
        rows = logprobs.rows
        parts = rows.logprobs, rows.ranks, rows.top_ids, rows.top_logprobs
        for part in parts:
            part.fill_(-77)
        counts = torch.tensor([num_rows, 0, 0, 0], dtype=torch.int32, device=device)
        logprobs(logits.to(device), codes.int().to(device), samples.int().to(device), counts)
        return [part[: len(logits)].clone().cpu() for part in parts]


@pytest.fixture(scope="module")
def logprobs(kernel_library: KernelLibrary) -> Logprobs:
    return Logprobs(kernel_library)


def check(logprobs: Logprobs, logits: torch.Tensor, codes: torch.Tensor, width: int) -> None:
    everywhere = torch.ones(len(logits))
    own, ranks, top_ids, top = logprobs.take(logits, codes, width, everywhere, len(logits))
    exact = logits.double().log_softmax(1)
    picked = logits.gather(1, codes[:, None])
    assert torch.equal(ranks, (logits > picked).sum(1, dtype=torch.int32) + 1)
    torch.testing.assert_close(own.double(), exact.gather(1, codes[:, None])[:, 0], atol=CLOSE, rtol=1e-5)
    assert torch.equal(top_ids, largest(logits, width)[0])
    torch.testing.assert_close(top.double(), exact.gather(1, top_ids.long()), atol=CLOSE, rtol=1e-5)


def check_drawn(logprobs: Logprobs, kind: str, vocab: int, width: int, num_rows: int, seed: int) -> None:
    logits = make_logits(kind, num_rows, vocab, seed)
    codes = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    check(logprobs, logits, codes, width)


@given(
    st.sampled_from(KINDS),
    st.sampled_from([(101, 0), (101, 20), (12288, 5), (12288, 700)]),
    st.integers(1, 3),
    st.integers(0, 1 << 30),
)
@settings(max_examples=60, deadline=None)
def test_it_finds_what_the_plain_one_finds(
    logprobs: Logprobs, kind: str, shape: tuple[int, int], num_rows: int, seed: int
) -> None:
    check_drawn(logprobs, kind, *shape, num_rows, seed)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel_library", ["cuda"], indirect=True)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([32000, 50257, 128256, 151936]),
    st.sampled_from([1, 20, 1000]),
    st.integers(1, MAX_ROWS),
    st.integers(0, 1 << 30),
)
@settings(max_examples=40, deadline=None)
def test_it_finds_what_the_plain_one_finds_in_whole_vocabularies(
    logprobs: Logprobs, kind: str, vocab: int, width: int, num_rows: int, seed: int
) -> None:
    check_drawn(logprobs, kind, vocab, width, num_rows, seed)


def test_ties_at_the_edge_and_tokens_that_cannot_be(logprobs: Logprobs) -> None:
    vocab, width = 12288, 5
    logits = torch.zeros(3, vocab)
    logits[0, 7000:] = 1.0  # more equals than can be listed
    logits[0, 11000] = 2.0
    logits[1] = -torch.inf  # fewer possible tokens than are listed
    logits[1, [9000, 3]] = 1.0
    logits[2, 1::2] = -0.0
    assert vocab - 7000 > MAX_LISTED
    check(logprobs, logits, torch.tensor([11999, 9000, 4]), width)


def test_rows_without_a_token_are_left_alone(logprobs: Logprobs) -> None:
    vocab, width = 101, 20
    logits = make_logits("spread", 5, vocab, 0)
    logits[1] = torch.nan
    codes, samples = torch.tensor([3, -1, 4, 5, 6]), torch.tensor([1, 1, 0, 1, 1])
    found = logprobs.take(logits, codes, width, samples, 4)
    alone = logprobs.take(logits[[0, 3]], codes[[0, 3]], width, torch.ones(2), 2)
    for part, ours in zip(found, alone, strict=True):
        assert torch.equal(part[[0, 3]], ours)
        assert (part[[1, 2, 4]] == -77).all()
