"""The table of rotary embeddings against transformers, for every form of scaling."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.checkpoint import CheckpointError
from engine.checkpoint.folder_rope import read_rope
from engine.checkpoint.json_file import read_json
from engine.layers.rope import rope_table
from tests.engine.rope_settings import LLAMA3, YARN

LINEAR: dict[str, Any] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_parameters": {"rope_type": "default", "rope_theta": 12345.0}},
    "linear": {"rope_parameters": LINEAR},
    "llama3": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": YARN},
    "yarn-tuned": {"rope_parameters": YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3}},
    "yarn-mscale": {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.1, "truncate": False}},
    "old-keys": {"rope_theta": 777.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "old-llama3": {
        "rope_theta": 500000.0,
        "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"},
    },
}


@pytest.mark.parametrize("name", ROPES)
def test_the_rope_table_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 256} | ROPES[name]))
    rope, _ = read_rope(read_json(tmp_path / "config.json"))
    config = transformers.LlamaConfig.from_dict(
        {"max_position_embeddings": 256, "head_dim": 64} | ROPES[name]
    )
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = theirs(torch.zeros(1, 1, 1), torch.arange(200).unsqueeze(0))
    expected = torch.cat((cos[0, :, :32], sin[0, :, :32]), dim=-1)
    table = rope_table(rope, 64, 200)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su"])
def test_other_rope_scalings_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    values = {"max_position_embeddings": 256, "rope_scaling": {"type": kind, "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=rf"rope_scaling.type is '{kind}'; accepted: default, linear, llama3 or yarn"
    ):
        read_rope(read_json(tmp_path / "config.json"))
