"""Whole models of other families, as they are served, beside transformers on the same GPU: from token ids to the last result.

Random weights in the shapes of albert-base-v2, distilbert-base-uncased and deberta-v3-base. Lengths as in the experiment, padded to the
longest input.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.encoder_cells import ELEMENT, Cell
from benchmarks.encoder_timer import Budget, attempt, time_host_ms
from engine.config import EngineConfig
from engine.encode_step import EncodeInput, EncodePlan, EncoderRunner
from engine.process.load import LoadedEncoder, load_model
from engine.startup import StartupReport

FIRST_ID, LAST_ID = 1000, 29000
MAX_TOKENS = 16384  # of a batch
Step = Callable[[], object]
FAMILIES: dict[str, dict[str, object]] = {
    "albert": {
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 512,
    },
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
    },
    "deberta-v2": {
        "vocab_size": 128100,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "position_biased_input": False,
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "position_buckets": 256,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "layer_norm_eps": 1e-7,
        "initializer_range": 0.05,  # so that scores, and with them positions, count
    },
}
UNFUSED_ALONE = ("deberta-v2",)  # torch's attention has no place for its positions


@dataclass(frozen=True, slots=True)
class FamilyTime:
    """Milliseconds as the host sees them; of transformers with torch's attention, and with the unfused one. None: failed or left out."""

    family: str
    batch: int
    max_len: int
    tokens: int
    ours_ms: float
    unfused_ms: float | None
    sdpa_ms: float | None
    compiled_ms: (
        float | None
    )  # torch.compile of the model, with torch's attention where it has that, its graphs captured
    cosine: float  # the least between our vector of an input and theirs


class FamilyBench:
    """One family's model, ours and theirs with the same weights."""

    def __init__(self, name: str) -> None:
        """Errors: whatever loading the model may raise."""
        self._name = name
        self._theirs = _Theirs(name)
        with tempfile.TemporaryDirectory(prefix="tokenloom-bench-") as folder:
            self._theirs.save(Path(folder))
            self._ours = _Ours(Path(folder))

    def measure(self, cell: Cell, budget: Budget) -> FamilyTime:
        inputs = _draw_inputs(cell)
        ids, mask = _pad(inputs)
        return FamilyTime(
            family=self._name,
            batch=cell.batch,
            max_len=cell.max_len,
            tokens=cell.num_tokens,
            cosine=_least_cosine(self._ours, self._theirs, inputs),
            ours_ms=round(time_host_ms(lambda: self._ours.run(inputs)), 3),
            unfused_ms=self._time(cell, "unfused", lambda: self._theirs.step("eager", ids, mask)),
            sdpa_ms=None
            if self._name in UNFUSED_ALONE
            else self._time(cell, "sdpa", lambda: self._theirs.step("sdpa", ids, mask)),
            compiled_ms=None
            if budget.is_spent
            else self._time(cell, "compiled", lambda: self._theirs.compiled_step(ids, mask)),
        )

    def close(self) -> None:
        self._ours.runner.close()

    def _time(self, cell: Cell, way: str, make: Callable[[], Step]) -> float | None:
        what = f"{self._name} {cell.name}, transformers {way}"
        return attempt(what, lambda: round(time_host_ms(make()), 3))


class _Ours:
    """The runner of a served model."""

    def __init__(self, folder: Path) -> None:
        config = EngineConfig(model=str(folder), device="cuda", dtype="float16", max_batch_tokens=MAX_TOKENS)
        loaded = load_model(config, StartupReport())
        assert isinstance(loaded, LoadedEncoder)
        self.runner: EncoderRunner = loaded.runner
        self._num_steps = 0

    def run(self, inputs: tuple[EncodeInput, ...]) -> torch.Tensor:
        """One vector an input, as the host has them: float32 [inputs, dim]."""
        self._num_steps += 1
        result = self.runner.launch(EncodePlan(self._num_steps, inputs)).result()
        assert not result.failed, result.failed
        return torch.from_numpy(np.stack(result.outputs))


class _Theirs:
    """A model of transformers."""

    def __init__(self, name: str) -> None:
        import transformers

        torch.manual_seed(0)
        self._config = transformers.AutoConfig.for_model(name, **FAMILIES[name])
        self._best = "eager" if name in UNFUSED_ALONE else "sdpa"
        self._models = {self._best: self._make(self._best)}

    def save(self, folder: Path) -> None:
        self._models[self._best].save_pretrained(folder)

    def vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float32 [inputs, dim]: the mean over an input's tokens."""
        with torch.no_grad():
            answer = self._models[self._best](input_ids=ids, attention_mask=mask)
        hidden: torch.Tensor = answer.last_hidden_state.float()
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def step(self, attention: str, ids: torch.Tensor, mask: torch.Tensor) -> Step:
        if attention not in self._models:
            self._models[attention] = self._make(attention)
            self._models[attention].load_state_dict(self._models[self._best].state_dict())
        return _stepper(self._models[attention], ids, mask)

    def compiled_step(self, ids: torch.Tensor, mask: torch.Tensor) -> Step:
        torch.compiler.reset()
        model = torch.compile(self._models[self._best], dynamic=False, mode="reduce-overhead")
        return _stepper(model, ids, mask)

    def _make(self, attention: str) -> Any:
        from transformers import AutoModel

        model = AutoModel.from_config(self._config, attn_implementation=attention)
        return model.to("cuda", ELEMENT).eval()


def _stepper(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> Step:
    def step() -> object:
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=mask)

    return step


def _draw_inputs(cell: Cell) -> tuple[EncodeInput, ...]:
    rng = np.random.default_rng(0)
    ids = (rng.integers(FIRST_ID, LAST_ID, length).astype(np.int32) for length in cell.lens)
    return tuple(EncodeInput(token_ids, None) for token_ids in ids)


def _pad(inputs: tuple[EncodeInput, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and 1 where they are, int64 [inputs, longest]: as a tokenizer of transformers pads."""
    ids = [torch.from_numpy(entry.token_ids).long() for entry in inputs]
    ones = [torch.ones_like(entry) for entry in ids]
    padded = (torch.nn.utils.rnn.pad_sequence(entries, batch_first=True) for entries in (ids, ones))
    on_gpu = [entry.cuda() for entry in padded]
    return on_gpu[0], on_gpu[1]


def _least_cosine(ours: _Ours, theirs: _Theirs, inputs: tuple[EncodeInput, ...]) -> float:
    got, expected = ours.run(inputs), theirs.vectors(*_pad(inputs)).cpu()
    return round(float(torch.cosine_similarity(got, expected).min()), 6)
