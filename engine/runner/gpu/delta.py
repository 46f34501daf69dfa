"""A plan's changes as one array of words, for cuda/apply.cu. Work is proportional to what changes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice

import numpy as np
import numpy.typing as npt

from engine.columns import FLOAT_COLUMNS, INT_COLUMNS
from engine.request import MAX_STOP_IDS
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.vocab_entries import Biases, Entries, make_biases
from engine.step import Admit, Plan

Words = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Delta:
    """The words: evicted slots; admit starts, counted from themselves on; slots, ids and ranks of blocks; slots and sizes of chunks;
    then an admit's words at each start: columns, tokens, blocks, biases."""

    words: Words
    num_evicted: int
    num_admitted: int
    num_blocks: int
    num_chunks: int
    max_tokens: int  # of the longest admitted request

    @property
    def num_given(self) -> int:
        """Changes beside evictions."""
        return self.num_admitted + self.num_blocks + self.num_chunks


def build_delta(plan: Plan, rows: DeviceRows) -> Delta:
    """Takes and frees entries of the pools for the plan's requests, so every plan is built, once, on the stream of the steps.

    Raises ValueError for what does not fit.
    """
    for admit in plan.admit:
        _check(admit, rows)
    biases = [make_biases(admit.sampling, rows.vocab_size) for admit in plan.admit]
    rows.vocab.end(plan.evict, plan.step - 1)
    records = [
        _admit_words(admit, own, rows.vocab.give(admit, own, plan.step), rows)
        for admit, own in zip(plan.admit, biases, strict=True)
    ]
    block_slots, block_ids = _columns(plan.blocks)
    blocks = *block_slots, *block_ids, *_ranks(block_slots)
    chunks = tuple(chain(*_columns(plan.chunks)))
    starts = accumulate(map(len, records), initial=len(records) + len(blocks) + len(chunks))
    listed = np.array((*plan.evict, *islice(starts, len(records)), *blocks, *chunks), np.int32)
    return Delta(
        words=np.concatenate((listed, *records)),
        num_evicted=len(plan.evict),
        num_admitted=len(plan.admit),
        num_blocks=len(plan.blocks),
        num_chunks=len(plan.chunks),
        max_tokens=max((len(admit.token_ids) for admit in plan.admit), default=0),
    )


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return first, second


def _ranks(slots: Sequence[int]) -> Sequence[int]:
    """How many entries before each one are equal to it."""
    if len(set(slots)) == len(slots):
        return bytes(len(slots))
    seen = Counter[int]()
    ranks = []
    for slot in slots:
        ranks.append(seen[slot])
        seen[slot] += 1
    return ranks


def _admit_words(admit: Admit, biases: Biases | None, entries: Entries, rows: DeviceRows) -> Words:
    params = admit.sampling
    ints = _int_values(admit, entries, rows)
    stop_ids = np.full(MAX_STOP_IDS, -1, np.int32)
    stop_ids[: len(params.stop_token_ids)] = params.stop_token_ids
    parts = [
        np.array([ints[name] for name in INT_COLUMNS], np.int32),
        np.array([getattr(params, name) for name in FLOAT_COLUMNS], np.float32).view(np.int32),
        np.array([params.seed % (1 << 64)], np.uint64).view(np.int32),
        stop_ids,
        np.array([0 if biases is None else len(biases.token_ids)], np.int32),
        admit.token_ids,
        np.array(admit.blocks, np.int32),
    ]
    if biases is not None:
        parts += [biases.token_ids, biases.values.view(np.int32)]
    return np.concatenate(parts)


def _int_values(admit: Admit, entries: Entries, rows: DeviceRows) -> dict[str, int]:
    params = admit.sampling
    return {
        "slot": admit.slot,
        "num_tokens": len(admit.token_ids),
        "num_prompt": admit.num_prompt,
        "num_computed": admit.num_cached,
        "max_total": min(admit.num_prompt + params.max_tokens, rows.max_model_len),
        "min_total": min(admit.num_prompt + params.min_tokens, rows.max_model_len),
        "top_k": min(max(params.top_k, 0), rows.vocab_size),
        "num_logprobs": -1 if params.logprobs is None else params.logprobs,
        "num_prompt_logprobs": -1 if params.prompt_logprobs is None else params.prompt_logprobs,
        "num_blocks": len(admit.blocks),
        "history_entry": entries.history,
        "bias_entry": entries.bias,
    }


def _check(admit: Admit, rows: DeviceRows) -> None:
    limits = {
        "slots": (admit.slot + 1, rows.max_requests),
        "tokens": (len(admit.token_ids), rows.max_model_len),
        "blocks": (len(admit.blocks), rows.max_blocks),
        "stop_token_ids": (len(admit.sampling.stop_token_ids), MAX_STOP_IDS),
    }
    for name, (wanted, limit) in limits.items():
        if wanted > limit:
            raise ValueError(f"slot {admit.slot} needs {wanted} {name}; there are at most {limit}")
