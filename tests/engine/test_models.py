"""The Llama family against transformers: the same weights, ragged packed batches, chunks, a paged cache."""

import json
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from engine.batch import Batch
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.config import FAMILIES
from engine.kernels.ops import LayerCache
from engine.kernels.reference import ReferenceOps
from engine.models import MODELS, find_model
from engine.models.load import load_model
from engine.models.model import Model
from tests.engine.rope_settings import LLAMA3, YARN

BLOCK_SIZE = 4
NUM_BLOCKS = 64
SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {"head_dim": 8}),
    "llama-tied": (transformers.LlamaConfig, {"tie_word_embeddings": True, "head_dim": 16}),
    "llama-biased": (transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama3": (transformers.LlamaConfig, {"rope_parameters": LLAMA3}),
    "mistral-window": (transformers.MistralConfig, {"sliding_window": 5, "head_dim": 8}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None, "head_dim": 8}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen2-yarn": (transformers.Qwen2Config, {"rope_parameters": YARN}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
}
PROMPT_LENGTHS = (9, 1, 23, 14, 30)
CHUNKS = ((4, 1, 23, 0, 7), (5, 0, 0, 14, 1), (0, 0, 0, 0, 22))  # tokens of each row, step by step


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of token ids with shuffled block tables, and how many of each row's tokens are computed."""

    tokens: list[list[int]]
    tables: torch.Tensor  # int32 [rows, max_blocks]

    def batch(self, done: list[int], chunk: tuple[int, ...]) -> Batch:
        """The next `chunk` tokens of each row, every one with logits."""
        places = [(row, p) for row, n in enumerate(chunk) for p in range(done[row], done[row] + n)]
        slots = [int(self.tables[row, p // BLOCK_SIZE]) * BLOCK_SIZE + p % BLOCK_SIZE for row, p in places]
        return Batch(
            token_ids=_int32([self.tokens[row][p] for row, p in places]),
            positions=_int32([p for _, p in places]),
            cache_slots=_int32(slots),
            query_starts=_int32([0, *accumulate(chunk)]),
            context_lens=_int32([d + n for d, n in zip(done, chunk, strict=True)]),
            block_tables=self.tables,
            logit_ids=torch.arange(len(places), dtype=torch.int32),
        )


def _int32(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _rows(tokens: list[list[int]], num_blocks: int) -> Rows:
    generator = torch.Generator().manual_seed(7)
    width = num_blocks // len(tokens)
    tables = torch.randperm(num_blocks, generator=generator)[: width * len(tokens)].view(len(tokens), width)
    return Rows(tokens, tables.int())


def _caches(model: Model, num_blocks: int) -> list[LayerCache]:
    """Poisoned, so that reading what was not written shows."""
    heads = model.heads
    keys = (num_blocks, heads.num_kv_heads, heads.head_dim, BLOCK_SIZE)
    values = (num_blocks, heads.num_kv_heads, BLOCK_SIZE, heads.head_dim)
    layers, poison = range(model.config.num_layers), torch.tensor(torch.nan, dtype=model.dtype)
    return [LayerCache(poison.expand(keys).clone(), poison.expand(values).clone()) for _ in layers]


def _pretrained(name: str) -> Any:
    """A random model of transformers, with all its vectors random too."""
    config_type, options = CONFIGS[name]
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(config_type(**SMALL | options)).float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in key else 0.0, 0.15)
    return model


def _saved(name: str, folder: Path) -> tuple[Any, Checkpoint]:
    theirs = _pretrained(name)
    theirs.save_pretrained(folder)
    return theirs, open_checkpoint(str(folder))


def _load(checkpoint: Checkpoint) -> Model:
    return load_model(checkpoint, ReferenceOps(), torch.float32, 128)


@torch.inference_mode()
def _difference(ours: Model, theirs: Any) -> float:
    """The largest difference between logits, relative to the largest, of prompts in chunks side by side."""
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randint(0, 97, (n,), generator=generator).tolist() for n in PROMPT_LENGTHS]
    rows, caches, done = _rows(tokens, NUM_BLOCKS), _caches(ours, NUM_BLOCKS), [0] * len(tokens)
    expected = [theirs(torch.tensor([row])).logits[0] for row in tokens]
    differences = []
    for chunk in CHUNKS:
        logits = ours.logits(ours(rows.batch(done, chunk), caches))
        assert logits.dtype == torch.float32
        wanted = torch.cat([e[d : d + n] for e, d, n in zip(expected, done, chunk, strict=True)])
        differences.append(((logits - wanted).abs().max() / wanted.abs().max()).item())
        done = [d + n for d, n in zip(done, chunk, strict=True)]
    assert done == list(PROMPT_LENGTHS)
    return float(np.max(differences))  # NaN stays NaN


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs, checkpoint = _saved(name, tmp_path)
    assert _difference(_load(checkpoint), theirs) <= 1e-4


def test_a_window_changes_the_logits(tmp_path: Path) -> None:
    theirs, checkpoint = _saved("mistral-window", tmp_path)
    assert checkpoint.decoder.sliding_window == 5
    unbounded = replace(checkpoint, config=replace(checkpoint.decoder, sliding_window=0))
    assert _difference(_load(unbounded), theirs) > 1e-2


def test_only_the_wanted_tokens_get_logits(tmp_path: Path) -> None:
    _, checkpoint = _saved("llama", tmp_path)
    model, rows = _load(checkpoint), _rows([[5, 6, 7], [8, 9]], NUM_BLOCKS)
    batch = rows.batch([0, 0], (3, 2))
    every = model(batch, _caches(model, NUM_BLOCKS))
    last = replace(batch, logit_ids=_int32([4, 2]))
    torch.testing.assert_close(model(last, _caches(model, NUM_BLOCKS)), every[[4, 2]])


def test_dummy_weights_give_finite_logits(tmp_path: Path) -> None:
    _, checkpoint = _saved("qwen3", tmp_path)
    model = load_model(checkpoint, ReferenceOps(), torch.bfloat16, 128, load_format="dummy")
    logits = model.logits(model(_rows([[5, 6, 7]], NUM_BLOCKS).batch([0], (3,)), _caches(model, NUM_BLOCKS)))
    assert 0.3 < logits.std().item() < 3.0


def _gguf_names(family: str, theirs: Any) -> dict[str, str]:
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}[
        family
    ]
    names = gguf.get_tensor_name_map(arch, theirs.config.num_hidden_layers)
    return {key: str(names.get_name(key, (".weight", ".bias"))) for key in theirs.state_dict()}


def _interleaved(weight: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """As converters to GGUF store a llama's queries and keys."""
    return weight.reshape(num_heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_gguf(path: Path, family: str, theirs: Any, rope_factors: list[float] | None = None) -> None:
    config, writer = theirs.config, gguf.GGUFWriter(path, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(getattr(config, "head_dim", config.hidden_size // config.num_attention_heads))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, name in _gguf_names(family, theirs).items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array, module = theirs.state_dict()[key].numpy(), key.split(".")[-2]
        writer.add_tensor(
            name, _interleaved(array, heads[module]) if family == "llama" and module in heads else array
        )
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama-biased", "qwen2", "qwen3"])
def test_logits_from_a_gguf_file_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs, path = _pretrained(name), tmp_path / "small.gguf"
    _write_gguf(path, name.partition("-")[0], theirs)
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.name == "small"
    assert _difference(_load(checkpoint), theirs) <= 1e-4


def test_a_gguf_files_rope_factors_are_llama3_scaling(tmp_path: Path) -> None:
    theirs, path = _pretrained("llama3"), tmp_path / "small.gguf"
    plain = 1.0 / LLAMA3["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
    _write_gguf(path, "llama", theirs, (plain / theirs.model.rotary_emb.inv_freq).tolist())
    assert _difference(_load(open_checkpoint(str(path))), theirs) <= 1e-4


def test_every_family_has_a_model() -> None:
    assert set(MODELS) == {family.architecture for family in FAMILIES}
    assert all(find_model(architecture).__name__ == "Llama" for architecture in MODELS)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load_model(open_checkpoint(""), ReferenceOps(), torch.float32, 1024)


@torch.inference_mode()
def test_the_bundled_model_says_what_transformers_says(bundled: Model) -> None:
    """Each answer given, each of its tokens is asked for again: all in one packed batch, nothing cached."""
    refs = json.loads((Path(__file__).parents[1] / "data" / "smollm2_refs.json").read_text())
    items = [item for item in refs["items"] if len(item["prompt_ids"]) + len(item["output_ids"]) <= 110]
    tokens = [item["prompt_ids"] + item["output_ids"][:-1] for item in items]
    rows = _rows(tokens, 28 * len(tokens))
    batch = rows.batch([0] * len(tokens), tuple(map(len, tokens)))
    logits = bundled.logits(bundled(batch, _caches(bundled, 28 * len(tokens))))
    assert len(items) >= 8
    for item, row in zip(items, torch.split(logits, [len(t) for t in tokens]), strict=True):
        answers = row[len(item["prompt_ids"]) - 1 :].log_softmax(-1)
        assert answers.argmax(-1).tolist() == item["output_ids"]
        logprobs = answers.max(-1).values
        torch.testing.assert_close(logprobs, torch.tensor(item["logprobs"]), rtol=0, atol=2e-3)
