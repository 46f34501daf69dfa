"""Tensors from files to a model: fused, complete, and refused with a clear word where they are not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from engine.kernels.reference import ReferenceOps
from engine.models.llama import Llama
from engine.models.load import load_model
from engine.weights import LoadFormat, Weights, open_weights

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 50,
}
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def _tensors() -> dict[str, torch.Tensor]:
    """A whole model's, no two rows alike."""
    generator = torch.Generator().manual_seed(1)
    matrices = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    names = {f"self_attn.{name}": shape for name, shape in matrices.items()}
    names |= {"mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (50, 32),
        "lm_head": (50, 32),
        "model.norm": (32,),
    }
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in names.items()}
        shapes |= {f"model.layers.{layer}.{n}_layernorm": (32,) for n in ("input", "post_attention")}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _folder(path: Path, tensors: dict[str, torch.Tensor] | None, **changes: object) -> Checkpoint:
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    if tensors is not None:
        save_file(tensors, path / "model.safetensors")
    return open_checkpoint(str(path))


def _open(checkpoint: Checkpoint, load_format: LoadFormat = "auto") -> Weights:
    return open_weights(checkpoint, Llama.layout(checkpoint.decoder), torch.float32, load_format)


def test_fused_tensors_hold_their_parts_in_order(tmp_path: Path) -> None:
    tensors = _tensors()
    weights = _open(_folder(tmp_path, tensors))
    prefix = "model.layers.1."
    qkv = torch.cat([tensors[f"{prefix}self_attn.{name}_proj.weight"] for name in "qkv"])
    assert torch.equal(weights.take(f"{prefix}self_attn.qkv_proj.weight"), qkv)
    gate_up = torch.cat([tensors[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up")])
    assert torch.equal(weights.take(f"{prefix}mlp.gate_up_proj.weight"), gate_up)
    assert Q_PROJ not in weights.left and "model.norm.weight" in weights.left


def test_a_tensor_is_handed_out_once(tmp_path: Path) -> None:
    weights = _open(_folder(tmp_path, _tensors()))
    weights.take("model.norm.weight")
    with pytest.raises(KeyError):
        weights.take("model.norm.weight")


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_come_in_the_dtype_asked_for(stored: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in _tensors().items()}
    checkpoint = _folder(tmp_path, tensors)
    weights = open_weights(checkpoint, Llama.layout(checkpoint.decoder), dtype)
    found = weights.take("lm_head.weight")
    assert found.dtype == dtype
    assert torch.equal(found, tensors["lm_head.weight"].to(dtype))
    assert weights.take("model.norm.weight", torch.float32).dtype == torch.float32


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    checkpoint = _folder(tmp_path, _tensors())
    load_model(
        checkpoint,
        ReferenceOps(),
        torch.float32,
        64,
        progress=lambda name, done, total: reports.append((name, done, total)),
    )
    assert [name for name, _, _ in reports][:1] == ["model.embed_tokens.weight"]
    assert {name for name, _, _ in reports} == set(_tensors())
    sizes = [done for _, done, _ in reports]
    assert sizes == sorted(sizes)
    assert sizes[-1] == reports[-1][2] == sum(4 * t.numel() for t in _tensors().values())


def _sharded(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Two files and their index."""
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def test_sharded_files(tmp_path: Path) -> None:
    tensors = _tensors()
    _sharded(tmp_path, tensors)
    weights = _open(_folder(tmp_path, None))
    assert torch.equal(weights.take(Q_PROJ), tensors[Q_PROJ])


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / _sharded(tmp_path, _tensors())[Q_PROJ]).unlink()
    with pytest.raises(
        CheckpointError, match=r"of-00002\.safetensors is missing, and .*index\.json names it"
    ):
        _open(_folder(tmp_path, None))


def test_an_index_that_points_out_of_its_folder(tmp_path: Path) -> None:
    index = {"weight_map": {Q_PROJ: "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"names the file '\.\./model\.safetensors'; accepted: a file of the same"
    ):
        _open(_folder(tmp_path, None))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = _tensors()
    del tensors[Q_PROJ]
    with pytest.raises(CheckpointError, match=rf"^missing: tensor {Q_PROJ}$"):
        _open(_folder(tmp_path, tensors))


def test_a_tensor_left_over_is_named(tmp_path: Path) -> None:
    extra = {"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)}
    with pytest.raises(
        CheckpointError, match=r"left over.*: tensor model\.layers\.2\.mlp\.up_proj\.weight in .*safetensors"
    ):
        _open(_folder(tmp_path, _tensors() | extra))


def test_a_bias_the_family_does_not_have_is_left_over(tmp_path: Path) -> None:
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}
    with pytest.raises(CheckpointError, match=r"left over.*q_proj\.bias"):
        _open(_folder(tmp_path, _tensors() | bias))


def test_a_misshaped_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=rf"{Q_PROJ} in .* has the shape \[32, 31\]; .* asks for \[32, 32\]"
    ):
        _open(_folder(tmp_path, _tensors() | {Q_PROJ: torch.ones(32, 31)}))


def test_harmless_tensors_are_passed_over(tmp_path: Path) -> None:
    tables = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.rotary_emb.inv_freq": torch.ones(4),
    }
    assert _open(_folder(tmp_path, _tensors() | tables)).left
    tied = _open(_folder(tmp_path, _tensors(), tie_word_embeddings=True))
    assert "lm_head.weight" not in tied.left


def test_an_unsupported_dtype_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{Q_PROJ} in .* is F64; accepted: F32, F16, BF16"):
        _open(_folder(tmp_path, _tensors() | {Q_PROJ: torch.ones(32, 32, dtype=torch.float64)}))


@pytest.mark.parametrize("size", [4, 100, -1])
def test_a_safetensors_file_cut_short(size: int, tmp_path: Path) -> None:
    checkpoint, path = _folder(tmp_path, _tensors()), tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the file is cut short or damaged"):
        _open(checkpoint)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    torch.save(_tensors(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"only as pickles \(pytorch_model\.bin\).*accepted: \.safetensors"
    ):
        _open(_folder(tmp_path, None))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no \.safetensors file; for random weights.* dummy"):
        _open(_folder(tmp_path, None))
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        CheckpointError, match=r"2 \.safetensors files and no model\.safetensors\.index\.json"
    ):
        _open(_folder(tmp_path, None))


def test_dummy_weights_are_the_same_every_time(tmp_path: Path) -> None:
    checkpoint = _folder(tmp_path, None)
    first, second = (_open(checkpoint, "dummy") for _ in range(2))
    name = "model.layers.0.self_attn.qkv_proj.weight"
    matrix = first.take(name)
    assert torch.equal(matrix, second.take(name))
    assert matrix.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert not torch.equal(matrix, first.take("model.layers.1.self_attn.qkv_proj.weight"))
    assert torch.equal(first.take("model.norm.weight"), torch.ones(32))
