"""The sampler on a GPU: it picks what the plain one picks, token for token."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.columns import Columns
from engine.kernels.gpu.module import Kernel, KernelLibrary
from engine.kernels.gpu.sampler import GpuSampler
from engine.kernels.gpu.vocab_parts import MAX_LISTED, THREADS
from engine.kernels.sample_reference import NOT_FINITE, NOTHING_ALLOWED, sample
from engine.request import SamplingParams
from tests.engine.sampling_rows import make_rows
from tests.kernels.gpu.sampling import KINDS, UNTOUCHED, SampleOnDevice, make_logits, move

MAX_RANK = THREADS // 2  # of top-k, that lists are made for


@pytest.fixture(scope="module")
def on_device(kernel_library: KernelLibrary) -> SampleOnDevice:
    return SampleOnDevice(kernel_library)


requests = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-6, 1e-4, 0.2, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 0, 1, 2, 7, 50, MAX_RANK, MAX_RANK + 1, 3000, 1 << 40]),
    top_p=st.sampled_from([1.0, 1.0, 0.99, 0.9, 0.5, 0.1, 1e-9]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.2, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2, 0.5, 1e-9]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3, -1.1]),
    logit_bias=st.dictionaries(st.integers(0, 3), st.sampled_from([-100.0, 0.5, 100.0]), max_size=2),
    allowed_token_ids=st.sampled_from([(), (), (), (0,), (1, 2, 3)]),
    banned_token_ids=st.sampled_from([(), (), (1,), (1, 2, 3)]),
    stop_token_ids=st.sampled_from([(), (2,), (0, 1)]),
    min_tokens=st.sampled_from([0, 5]),
    seed=st.integers(-(1 << 63), (1 << 63) - 1),
)


def check(on_device: SampleOnDevice, logits: torch.Tensor, columns: Columns) -> None:
    assert on_device(logits, columns).tolist() == sample(logits, columns).tolist()


def check_requests(
    on_device: SampleOnDevice, rows: list[SamplingParams], kind: str, vocab: int, seed: int
) -> None:
    columns = make_rows(rows, vocab, prompt=(0, 2), output=(1, 1, 3)).columns
    check(on_device, make_logits(kind, len(rows), vocab, seed), columns)


@given(
    st.lists(requests, min_size=1, max_size=3),
    st.sampled_from(KINDS),
    st.sampled_from([4, 101, 2052, 5001]),
    st.integers(0, 1 << 30),
)
@settings(max_examples=40, deadline=None)
def test_it_picks_what_the_plain_one_picks(
    on_device: SampleOnDevice, rows: list[SamplingParams], kind: str, vocab: int, seed: int
) -> None:
    check_requests(on_device, rows, kind, vocab, seed)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel_library", ["cuda"], indirect=True)
@given(
    st.lists(requests, min_size=1, max_size=40),
    st.sampled_from(KINDS),
    st.sampled_from([32000, 50257, 128256, 151936, 152064]),
    st.integers(0, 1 << 30),
)
@settings(max_examples=25, deadline=None)
def test_it_picks_what_the_plain_one_picks_from_whole_vocabularies(
    on_device: SampleOnDevice, rows: list[SamplingParams], kind: str, vocab: int, seed: int
) -> None:
    check_requests(on_device, rows, kind, vocab, seed)


@pytest.mark.parametrize("span", [0.0, 1e-45, 1e-38, 1.0, 1e38, 6e38])
@pytest.mark.parametrize("temperature", [1e-4, 1.0, 2.0])
def test_filters_work_whatever_span_the_logits_have(
    span: float, temperature: float, on_device: SampleOnDevice
) -> None:
    params = [
        SamplingParams(temperature=temperature, top_p=0.9),
        SamplingParams(temperature=temperature, top_k=700),
        SamplingParams(temperature=temperature, top_k=40, top_p=0.5),
    ]
    vocab = 5001
    logits = (torch.linspace(-0.5, 0.5, vocab, dtype=torch.float64) * span).float().expand(3, vocab)
    check(on_device, logits, make_rows(params, vocab).columns)


def test_more_tokens_than_can_be_listed(on_device: SampleOnDevice) -> None:
    """Equal ones, and nearly equal ones, at the edge of top-k and top-p."""
    vocab = 3 * MAX_LISTED
    params = [
        SamplingParams(top_k=3, seed=1),
        SamplingParams(top_p=0.6, seed=2),
        SamplingParams(top_p=0.6, top_k=9),
    ]
    logits = torch.zeros(3, vocab)
    logits[:, 5] = 4.0
    logits[:, MAX_LISTED - 5 :: 2] = 1.0
    logits[1, 6:] += torch.arange(vocab - 6) * 1e-7
    for seed in range(3):
        columns = make_rows(params, vocab).columns
        check(on_device, logits, replace(columns, seed=columns.seed + seed))


class Imprecise:
    """Compiles with times in single precision taken for so rough that most of a race is decided in double."""

    def __init__(self, library: KernelLibrary) -> None:
        self._library = library
        self.num_multiprocessors = library.num_multiprocessors
        self.architecture = library.architecture
        self.device = library.device

    def get(self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0) -> Kernel:
        return self._library.get(source, function, {**defines, "TIME_BITS": 4}, shared_bytes)


def test_times_too_near_for_single_precision_are_told_apart(kernel_library: KernelLibrary) -> None:
    vocab, num_draws = 5001, 24
    rows = make_rows([SamplingParams(temperature=2.0)], vocab).select(
        torch.zeros(num_draws, dtype=torch.int64)
    )
    columns = replace(rows, seed=torch.arange(num_draws))
    check(SampleOnDevice(Imprecise(kernel_library)), make_logits("spread", num_draws, vocab, 4), columns)


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_a_broken_row_fails_alone(value: float, on_device: SampleOnDevice) -> None:
    vocab = 5001
    logits = make_logits("spread", 4, vocab, 1)
    rows = [SamplingParams(seed=i, temperature=i % 2, logit_bias={5: 1.0} if i < 2 else {}) for i in range(4)]
    columns = make_rows(rows, vocab).columns
    whole = sample(logits, columns).tolist()
    for row, place in ((0, 0), (1, vocab - 1), (2, 17), (3, 2500)):
        broken = logits.clone()
        broken[row, place] = value
        want = [NOT_FINITE if i == row else token for i, token in enumerate(whole)]
        assert on_device(broken, columns).tolist() == want


def test_a_row_with_nothing_left_says_so(on_device: SampleOnDevice) -> None:
    rows = [
        SamplingParams(allowed_token_ids=(1,), banned_token_ids=(1,)),
        SamplingParams(temperature=0.0, allowed_token_ids=(2,), stop_token_ids=(2,), min_tokens=1),
        SamplingParams(temperature=0.0),
    ]
    logits = make_logits("spread", 3, 101, 1)
    logits[2] = -torch.inf
    assert on_device(logits, make_rows(rows, 101).columns).tolist() == [NOTHING_ALLOWED] * 3


def test_of_equal_logits_greedy_takes_the_first(on_device: SampleOnDevice) -> None:
    vocab = 5001
    logits = torch.zeros(3, vocab)
    logits[0, ::2] = -0.0
    logits[1, vocab // 2 :] = 9.0
    logits[2, :-1] = -torch.inf
    columns = make_rows([SamplingParams(temperature=0.0)] * 3, vocab).columns
    assert on_device(logits, columns).tolist() == [0, vocab // 2, vocab - 1]


def test_rows_that_do_not_sample_stay_as_they_are(on_device: SampleOnDevice) -> None:
    vocab = 5001
    rows = [SamplingParams(seed=i, temperature=i % 2, top_p=0.8) for i in range(6)]
    columns = make_rows(rows, vocab).columns
    logits = make_logits("spread", 6, vocab, 2)
    on_device(logits, columns)  # leaves what the rows below must not take up
    got = on_device.sample_some(logits, columns, torch.tensor([1, 0, 0, 1, 1, 1], dtype=torch.int32), 5)
    want = sample(logits, columns).tolist()
    assert got.tolist() == [want[0], UNTOUCHED, UNTOUCHED, want[3], want[4], UNTOUCHED]


def test_a_token_depends_on_its_own_row_alone(on_device: SampleOnDevice) -> None:
    """Whatever the number of rows, and of blocks a row."""
    vocab = 12288
    params = [
        SamplingParams(seed=0),
        SamplingParams(seed=1, top_k=50, top_p=0.95),
        SamplingParams(seed=2, top_p=0.9, presence_penalty=1.0),
        SamplingParams(seed=3, min_p=0.05),
        SamplingParams(seed=4, temperature=0.0),
        SamplingParams(seed=5, top_k=900, presence_penalty=1.0),
    ]
    rows = make_rows(params, vocab, prompt=(0, 2), output=(1, 1, 3))
    logits = make_logits("spread", 6, vocab, 3)
    together = on_device(logits, rows.columns)
    for ids in ([0], [1], [2], [3], [4], [5], [5, 0, 3], [2, 1]):
        mates = torch.tensor(ids)
        assert torch.equal(on_device(logits[mates], rows.select(mates)), together[mates])


def test_what_it_cannot_take_is_refused(kernel_library: KernelLibrary) -> None:
    device = kernel_library.device
    columns = move(make_rows([SamplingParams()], 8).columns, device)
    numbers = torch.zeros(2, dtype=torch.int32, device=device)
    pools = torch.zeros(2, dtype=torch.int64, device=device)
    sampler = GpuSampler(kernel_library, 8, 4)
    for logits, message in (
        (
            torch.zeros(1, 8, dtype=torch.float64, device=device),
            r"torch.float64 .* accepted: torch.float32 \[rows, 8\]",
        ),
        (torch.zeros(1, 9, device=device), r"\[rows, 9\]"),
        (torch.zeros(2, 8, device=device), "2 rows of logits; there are at most 1"),
        (torch.zeros(1, 12, device=device)[:, 1:9], "multiples of 16 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(
                logits,
                columns,
                numbers,
                numbers,
                pools,
                numbers,
            )
