"""The sampler against formulations in float64, distributions, and what it must refuse."""

import ctypes
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.columns import Columns
from engine.kernels.cpu_sample import CpuSampler
from engine.kernels.sample_reference import NOT_FINITE, NOTHING_ALLOWED, adjust, keep, philox, sample
from engine.request import SamplingParams
from engine.sampler.sampler import Sample
from tests.engine.sampling_rows import make_rows
from tests.kernels.targets import find_targets, load_kernels

Floats = npt.NDArray[np.float64]
KNOWN_ANSWERS = [  # of Philox4x32-10: counter, key, words, as published with Random123
    ("00000000" * 4, "00000000" * 2, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
    ("ffffffff" * 4, "ffffffff" * 2, "408f276d41c83b0ea20bc7c66d5451fd"),
    ("243f6a8885a308d313198a2e03707344", "a4093822299f31d0", "d16cfe0994fdcceb5001e42024126ea1"),
]


@pytest.fixture(scope="module")
def compiled(library: ctypes.CDLL) -> CpuSampler:
    return CpuSampler(library, 1)


@pytest.fixture(params=["plain", *find_targets()])
def sampler(request: pytest.FixtureRequest) -> Sample:
    return sample if request.param == "plain" else CpuSampler(load_kernels(request.param), 1)


def words_of(text: str) -> list[int]:
    return [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]


def columns_of(*requests: SamplingParams, vocab: int, output: tuple[int, ...] = ()) -> Columns:
    return make_rows(requests, vocab, prompt=(0,), output=output).columns


def draws(sampler: Sample, logits: torch.Tensor, params: SamplingParams, num_draws: int) -> list[int]:
    """Many draws from logits [vocab], each under a seed of its own."""
    vocab = logits.shape[0]
    one = make_rows([params], vocab).select(torch.zeros(num_draws, dtype=torch.int64))
    columns = replace(one, seed=torch.arange(num_draws))
    return sampler(logits.expand(num_draws, vocab), columns).tolist()


def softmax(x: Floats) -> Floats:
    weights: Floats = np.exp(x - x.max())
    weights /= weights.sum()
    return weights


def kept_by(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """Temperature, min-p, top-k and top-p one after the other, each masking and normalising again."""
    x = logits.double().numpy() / params.temperature
    probabilities = softmax(x)
    x = np.where(probabilities < params.min_p * probabilities.max(), -np.inf, x)
    if params.top_k:
        x = np.where(x < np.sort(x)[::-1][: params.top_k][-1], -np.inf, x)
    if params.top_p < 1:
        order = np.argsort(-x)
        num_kept = int((np.cumsum(softmax(x)[order]) < params.top_p).sum()) + 1
        x[order[num_kept:]] = -np.inf
    return set(np.flatnonzero(x > -np.inf).tolist())


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter: str, key: str, words: str, library: ctypes.CDLL) -> None:
    got = philox(torch.tensor([words_of(counter)]), *words_of(key))
    assert got.tolist() == [words_of(words)]
    state = (ctypes.c_uint32 * 4)(*words_of(counter))
    library.philox4x32(state, (ctypes.c_uint32 * 2)(*words_of(key)))
    assert list(state) == words_of(words)


def test_greedy_takes_the_largest_and_of_equals_the_first(sampler: Sample) -> None:
    for vocab in (1, 5, 63, 64, 65, 5000, 40000):
        logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(vocab))
        logits[1] = 0.0
        logits[1, ::2] = -0.0
        logits[2, vocab // 2 :] = 9.0
        columns = columns_of(*[SamplingParams(temperature=0.0)] * 3, vocab=vocab)
        best = [int(np.argmax(logits[0].numpy())), 0, vocab // 2]
        assert sampler(logits, columns).tolist() == best


def test_penalties_are_those_of_the_papers() -> None:
    vocab, prompt, output = 40, [3, 4, 5, 3], [5, 6, 6, 7]
    params = SamplingParams(repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=-0.7)
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(0)) * 4
    counts = Counter(output)
    want = []
    for token, x in enumerate(logits[0].tolist()):
        if token in prompt or token in output:
            x = x / 1.3 if x > 0 else x * 1.3
        want.append(x - 0.4 * counts[token] + 0.7 * (token in output))
    got = adjust(logits, make_rows([params], vocab, prompt, output).columns)
    np.testing.assert_allclose(got[0].numpy(), want, rtol=1e-6)


def test_biases_and_masks_add_up() -> None:
    params = SamplingParams(
        logit_bias={1: 5.0, 2: -3.0, 9: 100.0},
        allowed_token_ids=(1, 2, 3, 4),
        banned_token_ids=(3,),
        stop_token_ids=(4, 6),
        min_tokens=1,
    )
    early = adjust(torch.zeros(1, 10), columns_of(params, vocab=10))
    assert early[0].tolist() == [-torch.inf, 5.0, -3.0, *[-torch.inf] * 7]
    later = adjust(torch.zeros(1, 10), columns_of(params, vocab=10, output=(1,)))
    assert later[0].tolist() == [-torch.inf, 5.0, -3.0, -torch.inf, 0.0, *[-torch.inf] * 5]


filters = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.2, 0.7, 1.0, 1.8]),
    top_k=st.sampled_from([0, 1, 2, 7, 40, 400]),
    top_p=st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.1, 1e-9]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
)


@given(filters, st.sampled_from([1, 3, 64, 300]), st.sampled_from([0.3, 3.0, 12.0]), st.integers(0, 1 << 30))
@settings(max_examples=100, deadline=None)
def test_filters_keep_what_their_definitions_keep(
    params: SamplingParams, vocab: int, scale: float, seed: int
) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * scale
    columns = columns_of(params, vocab=vocab)
    distance = (logits.max() - logits) / params.temperature
    assert set(torch.nonzero(keep(logits, distance, columns, 0)).flatten().tolist()) == kept_by(
        logits, params
    )


def test_equals_at_an_edge_are_all_kept(sampler: Sample) -> None:
    logits = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0, 2.0, 0.0])
    for params, kept in (
        (SamplingParams(top_k=2), {1, 3, 5}),
        (SamplingParams(top_k=4), {0, 1, 2, 3, 4, 5}),
        (SamplingParams(top_p=0.5), {1, 3, 5}),
        (SamplingParams(min_p=float(np.exp(-2.0))), {0, 1, 2, 3, 4, 5}),
        (SamplingParams(top_k=1), {1}),
        (SamplingParams(top_p=1e-9), {1}),
    ):
        assert set(draws(sampler, logits, params, 300)) == kept


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.5, top_k=20),
        SamplingParams(top_p=0.8),
        SamplingParams(top_k=12, top_p=0.9, min_p=0.02),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams, compiled: CpuSampler) -> None:
    vocab, num_draws = 48, 40000
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(5)) * 1.5
    kept = sorted(kept_by(logits, params))
    expected = softmax(logits.double().numpy()[kept] / params.temperature) * num_draws
    counts = Counter(draws(compiled, logits, params, num_draws))
    assert set(counts) <= set(kept)
    chi_square = sum((counts[token] - want) ** 2 / want for token, want in zip(kept, expected, strict=True))
    degrees = len(kept) - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees), (
        f"{chi_square:.1f} with {degrees} degrees of freedom"
    )


def test_draws_at_one_seeds_places_follow_the_distribution(compiled: CpuSampler) -> None:
    num_draws = 20000
    probabilities = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    columns = replace(
        make_rows([SamplingParams(seed=77)], 5).select(torch.zeros(num_draws, dtype=torch.int64)),
        num_tokens=torch.arange(num_draws, dtype=torch.int32),
    )
    logits = torch.from_numpy(np.log(probabilities)).float().expand(num_draws, 5)
    counts = np.bincount(compiled(logits, columns).numpy(), minlength=5)
    chi_square = ((counts - probabilities * num_draws) ** 2 / (probabilities * num_draws)).sum()
    assert chi_square < 18.5, chi_square  # 4 degrees of freedom: 1 in 1000


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_a_broken_row_fails_alone(value: float, sampler: Sample) -> None:
    vocab = 20000
    logits = torch.randn(4, vocab, generator=torch.Generator().manual_seed(1))
    rows = [SamplingParams(seed=i, temperature=i % 2, logit_bias={5: 1.0} if i < 2 else {}) for i in range(4)]
    columns = columns_of(*rows, vocab=vocab)
    whole = sampler(logits, columns).tolist()
    for row in range(4):
        for place in (0, vocab - 1):
            broken = logits.clone()
            broken[row, place] = value
            want = [NOT_FINITE if i == row else token for i, token in enumerate(whole)]
            assert sampler(broken, columns).tolist() == want


def test_a_row_with_nothing_left_says_so(sampler: Sample) -> None:
    rows = [
        SamplingParams(allowed_token_ids=(1,), banned_token_ids=(1,)),
        SamplingParams(temperature=0.0, allowed_token_ids=(2,), stop_token_ids=(2,), min_tokens=1),
        SamplingParams(temperature=0.0),
    ]
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    logits[2] = -torch.inf
    assert sampler(logits, columns_of(*rows, vocab=10)).tolist() == [NOTHING_ALLOWED] * 3


def test_seeds_and_places_change_the_draw(sampler: Sample) -> None:
    columns = make_rows([SamplingParams(seed=5)], 5000).select(torch.zeros(4, dtype=torch.int64))
    varied = replace(
        columns,
        seed=torch.tensor([5, 5, 6, 5 + (1 << 32)]),
        num_tokens=torch.tensor([1, 2, 1, 1], dtype=torch.int32),
    )
    assert len(set(sampler(torch.zeros(4, 5000), varied).tolist())) == 4
