"""Public models' shapes, for runs with random weights; and requests with lengths as people's are."""

import json
from pathlib import Path

import numpy as np

_LLAMA3 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
SHAPES: dict[str, dict[str, object]] = {
    "llama3-8b": _LLAMA3
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "llama3.2-1b": _LLAMA3
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "smollm2-135m": _LLAMA3
    | {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49152,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


def write_shape(name: str, root: Path) -> Path:
    """A folder with nothing but the shape's config.json."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[name]))
    return folder


def weight_bytes(name: str) -> int:
    """Bytes of bfloat16 weights that one decode step reads; of the embedding's rows nothing to speak of."""
    c = {key: value for key, value in SHAPES[name].items() if isinstance(value, int)}
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    queries = c["num_attention_heads"] * c["head_dim"]
    keys = c["num_key_value_heads"] * c["head_dim"]
    layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * inner
    return 2 * (c["num_hidden_layers"] * layer + c["vocab_size"] * hidden)


def kv_bytes_per_token(name: str) -> int:
    c = {key: value for key, value in SHAPES[name].items() if isinstance(value, int)}
    return 4 * c["num_hidden_layers"] * c["num_key_value_heads"] * c["head_dim"]


def ragged_requests(num_requests: int, seed: int = 0, vocab: int = 30000) -> list[tuple[list[int], int]]:
    """Prompts' token ids and numbers of new tokens: lognormal lengths, about 220 and 200 on average."""
    r = np.random.RandomState(seed)
    prompts = np.clip(r.lognormal(4.9, 1.0, num_requests), 4, 1500).astype(int)
    outputs = np.clip(r.lognormal(4.9, 0.9, num_requests), 4, 1000).astype(int)
    return [(r.randint(100, vocab, n).tolist(), int(m)) for n, m in zip(prompts, outputs, strict=True)]
