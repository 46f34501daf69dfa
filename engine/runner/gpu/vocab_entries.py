"""Which slots hold entries of the pools that are as wide as the vocabulary. The host's books; the values are on the device."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.request import SamplingParams
from engine.sampler.vocab import VocabPool, needs_bias, needs_history
from engine.step import Admit


@dataclass(frozen=True, slots=True)
class Biases:
    """A bias where it differs from the background: -inf where only some tokens are allowed, else 0."""

    background: float
    token_ids: npt.NDArray[np.int32]  # [n]
    values: npt.NDArray[np.float32]  # [n]


@dataclass(frozen=True, slots=True)
class Entries:
    """Of one slot; -1 where it has none."""

    history: int
    bias: int
    step: int  # at which it was admitted


class VocabEntries:
    """Entries go back when the host is told that their slot ended, so the device is then done with them."""

    def __init__(self, vocab_size: int, max_requests: int, device: torch.device) -> None:
        self.history = VocabPool(vocab_size, max_requests, torch.int32, device)
        self.bias = VocabPool(vocab_size, max_requests, torch.float32, device)
        self._backgrounds = {
            value: torch.full((), value, dtype=torch.float32, device=device) for value in (0.0, -math.inf)
        }
        self._no_counts = torch.zeros((), dtype=torch.int32, device=device)
        self._held: dict[int, Entries] = {}  # by slot

    @property
    def num_bytes(self) -> int:
        return self.history.values.nbytes + self.bias.values.nbytes

    def give(self, admit: Admit, biases: Biases | None, step: int) -> Entries:
        """Entries for what the request asks for, filled with what most tokens have: on the current stream, without waiting."""
        history = self.history.put(self._no_counts) if needs_history(admit.sampling) else -1
        bias = -1 if biases is None else self.bias.put(self._backgrounds[biases.background])
        entries = Entries(history, bias, step)
        if history >= 0 or bias >= 0:
            self._held[admit.slot] = entries
        return entries

    def end(self, slots: Iterable[int], step: int) -> None:
        """These slots' requests ended in `step`. Who was admitted to a slot after it, and slots without entries, are left alone."""
        for slot in slots:
            entries = self._held.get(slot)
            if entries is not None and entries.step <= step:
                del self._held[slot]
                self.history.give_back([entries.history])
                self.bias.give_back([entries.bias])


def make_biases(params: SamplingParams, vocab_size: int) -> Biases | None:
    """engine.sampler.vocab.make_bias, sparse; None where there is none. Raises ValueError for a token the vocabulary does not have."""
    if not needs_bias(params):
        return None
    _check("allowed_token_ids", params.allowed_token_ids, vocab_size)
    _check("logit_bias", params.logit_bias, vocab_size)
    _check("banned_token_ids", params.banned_token_ids, vocab_size)
    values = dict.fromkeys(params.allowed_token_ids, 0.0)
    for token, bias in params.logit_bias.items():
        if token in values or not params.allowed_token_ids:
            values[token] = bias
    values |= dict.fromkeys(params.banned_token_ids, -math.inf)
    return Biases(
        background=-math.inf if params.allowed_token_ids else 0.0,
        token_ids=np.fromiter(values.keys(), np.int32, len(values)),
        values=np.fromiter(values.values(), np.float32, len(values)),
    )


def _check(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    outside = next((token for token in token_ids if not 0 <= token < vocab_size), None)
    if outside is not None:
        raise ValueError(f"{name} has the token id {outside}; accepted: 0 to {vocab_size - 1}")
