"""The files of a small model's folder, for putting faults into."""

import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

CONFIG: Json = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 100,
    "eos_token_id": 2,
}
ENCODER: Json = {
    "architectures": ["BertForSequenceClassification"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "vocab_size": 100,
}
BYTE_LEVEL: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BPE: Json = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
TOKENIZER: Json = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": BYTE_LEVEL,
    "post_processor": None,
    "decoder": BYTE_LEVEL,
    "model": BPE,
}


def tensor(start: int, end: int, shape: tuple[int, ...] = (4,), dtype: str = "F32") -> Json:
    """An entry of a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def safetensors(header: Json | bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """A file, whose header may be given as it is, and may lie about its own size."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written) if size is None else size) + written + data


def put(folder: Path, config: Json = CONFIG, tokenizer: Json = TOKENIZER) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


# What may stand for a value.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**64)
    | st.sampled_from([10**30, 10**400, 1e308, 0.5, "silu", "yarn", "\x1b[2J", "x" * 300])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
