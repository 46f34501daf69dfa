"""Tensors of GGUF files: dequantised or left as they are, in order, and refused with a clear word where they are at fault."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from engine.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from engine.models.llama import Llama
from engine.quantised import Quantised
from engine.weights import Weights, open_weights


def _open(checkpoint: Checkpoint, quantised: bool = False) -> Weights:
    layout = Llama.layout(checkpoint.decoder)
    return open_weights(checkpoint, layout, torch.float32, quantised=quantised)


def _gguf(
    path: Path,
    changes: dict[str, np.ndarray[Any, Any]],
    quantised: bool = False,
    odd: Mapping[str, gguf.GGMLQuantizationType] = MappingProxyType({}),
) -> Checkpoint:
    """A tied llama of one layer. quantised: its matrices, to eight bits; those in `odd` as they say."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (50, 32), "output_norm": (32,)}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    shapes |= {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    random = np.random.default_rng(1)
    tensors = {
        f"{name}.weight": random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    for name, array in (tensors | changes).items():
        if quantised and array.ndim == 2:
            kind = odd.get(name, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_checkpoint(str(path))


def test_quantised_tensors_are_dequantised(tmp_path: Path) -> None:
    down = np.random.default_rng(5).standard_normal((32, 64), dtype=np.float32)
    weights = _open(_gguf(tmp_path / "q.gguf", {"blk.0.ffn_down.weight": down}, quantised=True))
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(down, kind), kind)
    assert torch.equal(weights.take("model.layers.0.mlp.down_proj.weight"), torch.from_numpy(expected))
    assert np.abs(expected - down).max() > 0


def test_quantised_tensors_stay_so_where_that_is_wanted(tmp_path: Path) -> None:
    checkpoint = _gguf(tmp_path / "q.gguf", {}, quantised=True)
    weights, widened = _open(checkpoint, quantised=True), _open(checkpoint)
    for name in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj"):
        matrix = weights.take_matrix(f"model.layers.0.{name}.weight")
        assert isinstance(matrix, Quantised) and matrix.quants.dtype == torch.int8
        assert torch.equal(matrix.dense(), widened.take(f"model.layers.0.{name}.weight"))
    assert not any("attn" in name or "gate" in name for name in weights.left)
    assert weights.num_bytes < widened.num_bytes / 3


@pytest.mark.parametrize("kind", ["F32", "Q4_0"])
def test_parts_that_are_not_quantised_alike_are_widened(kind: str, tmp_path: Path) -> None:
    """A file has values in more bits than queries and keys, say."""
    odd = {"blk.0.attn_v.weight": gguf.GGMLQuantizationType[kind]}
    checkpoint = _gguf(tmp_path / "q.gguf", {}, quantised=True, odd=odd)
    weights, widened = _open(checkpoint, quantised=True), _open(checkpoint)
    qkv = weights.take_matrix("model.layers.0.self_attn.qkv_proj.weight")
    assert isinstance(qkv, torch.Tensor)
    assert torch.equal(qkv, widened.take("model.layers.0.self_attn.qkv_proj.weight"))


def test_query_rows_are_put_back_in_order(tmp_path: Path) -> None:
    """Row 2i of a head becomes its row i, row 2i + 1 its row i plus half a head."""
    numbered = np.repeat(np.arange(32, dtype=np.float32)[:, None], 32, axis=1)
    weights = _open(_gguf(tmp_path / "p.gguf", {"blk.0.attn_q.weight": numbered}))
    rows = weights.take("model.layers.0.self_attn.qkv_proj.weight")[:32, 0].tolist()
    assert rows[:8] == [0, 2, 4, 6, 1, 3, 5, 7]
    assert rows[8:16] == [8, 10, 12, 14, 9, 11, 13, 15]


def test_gguf_tensors_at_fault_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"left over.*: tensor blk\.0\.attn_sinks\.weight"):
        _open(_gguf(tmp_path / "extra.gguf", {"blk.0.attn_sinks.weight": np.ones(4, dtype=np.float32)}))
    with pytest.raises(
        CheckpointError, match=r"tensor blk\.0\.attn_v\.weight .*shape \[32, 8\].*asks for \[32, 32\]"
    ):
        _open(_gguf(tmp_path / "shape.gguf", {"blk.0.attn_v.weight": np.ones((32, 8), dtype=np.float32)}))
    tensors = {"blk.0.attn_norm.bias": np.ones(32, dtype=np.float32)}
    with pytest.raises(CheckpointError, match=r"left over.*blk\.0\.attn_norm\.bias"):
        _open(_gguf(tmp_path / "bias.gguf", tensors))


def test_a_gguf_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    checkpoint = _gguf(tmp_path / "missing.gguf", {})
    path = tmp_path / "renamed.gguf"
    path.write_bytes(checkpoint.path.read_bytes().replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_UP.weight"))
    with pytest.raises(
        CheckpointError, match=r"^missing: tensor blk\.0\.ffn_up\.weight \(model\.layers\.0\.mlp\.up_proj"
    ):
        _open(open_checkpoint(str(path)))


def test_gguf_tensors_cut_short(tmp_path: Path) -> None:
    checkpoint = _gguf(tmp_path / "cut.gguf", {})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"cut short; tensor .* ends at byte \d+ of \d+"):
        _open(open_checkpoint(str(checkpoint.path)))
