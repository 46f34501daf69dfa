"""Tensors read in pieces by several threads are those that are read one by one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import CheckpointError, open_checkpoint
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.models import find_encoder
from engine.models.encoders.packed import PackedEncoder, encoder_layout
from engine.models.llama import Llama
from engine.weights import Layout, Weights, open_weights
from engine.weights.encoder import EncoderSource
from engine.weights.gguf import GgufSource
from engine.weights.safetensors import SafetensorsSource
from engine.weights.staging import StagedReader
from tests.engine.encoder_models import answer, load, make_inputs, make_theirs
from tests.engine.encoder_models import save as save_model

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda", 0), marks=pytest.mark.gpu)]
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
SHAPES = {
    "a.q_proj.weight": (5, 33),
    "a.k_proj.weight": (2, 33),
    "a.v_proj.weight": (1, 33),
    "norm.weight": (33,),
    "embed.weight": (301, 33),
}


def save(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return tensors


def staged(path: Path, dtype: torch.dtype, device: torch.device, reports: list[str]) -> Weights:
    """Pieces of 60 bytes: many a tensor, none of whole rows."""
    source = SafetensorsSource(path)
    reader = StagedReader(source, device, piece_bytes=60)
    return Weights(
        source, Layout(SHAPES, FUSED), dtype, lambda name, *_: reports.append(name), device, reader
    )


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_pieces(
    tmp_path: Path, device: torch.device, stored: torch.dtype, dtype: torch.dtype
) -> None:
    tensors = save(tmp_path, stored)
    reports: list[str] = []
    with torch.inference_mode():  # as a runner is built
        weights = staged(tmp_path, dtype, device, reports)
        embedding = weights.take("embed.weight")
        qkv = weights.take("a.qkv_proj.weight")
        norm = weights.take("norm.weight", torch.float32)
        assert reports == []
        weights.finish()
    assert reports == ["embed.weight", *(f"a.{name}_proj.weight" for name in "qkv"), "norm.weight"]
    assert {tensor.device for tensor in (embedding, qkv, norm)} == {device}
    assert torch.equal(embedding.cpu(), tensors["embed.weight"].to(dtype))
    parts = [tensors[f"a.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(qkv.cpu(), torch.cat(parts).to(dtype))
    assert torch.equal(norm.cpu(), tensors["norm.weight"].float())
    assert weights.num_bytes == embedding.nbytes + qkv.nbytes + norm.nbytes


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_what_was_taken_can_be_waited_for(tmp_path: Path, device: torch.device) -> None:
    tensors = save(tmp_path, torch.float32)
    reports: list[str] = []
    with torch.inference_mode():
        weights = staged(tmp_path, torch.float32, device, reports)
        embedding = weights.take("embed.weight")
        weights.wait()
        doubled = 2 * embedding
        del embedding
        norm = weights.take("norm.weight")
        weights.wait()
        qkv = weights.take("a.qkv_proj.weight")
        weights.finish()
    assert torch.equal(doubled.cpu(), 2 * tensors["embed.weight"])
    assert torch.equal(norm.cpu(), tensors["norm.weight"])
    assert torch.equal(qkv.cpu(), torch.cat([tensors[f"a.{name}_proj.weight"] for name in "qkv"]))
    assert len(reports) == len(set(reports)) == len(SHAPES)


@pytest.mark.parametrize("name", ["deberta", "deberta-v3"])
def test_positions_are_projected_by_weights_that_are_there(tmp_path: Path, name: str) -> None:
    save_model(make_theirs(name, "embed"), tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    family = find_encoder("deberta")
    layout = encoder_layout(checkpoint.encoder, family)
    source = EncoderSource(tmp_path, layout, ())
    cpu = torch.device("cpu")
    reader = StagedReader(source, cpu, piece_bytes=60)
    with torch.inference_mode():
        weights = Weights(source, layout, torch.float32, None, cpu, reader)
        model = PackedEncoder(checkpoint.encoder, family, weights, ReferenceEncoderOps())
        weights.finish()
    inputs = make_inputs()
    for got, want in zip(answer(model, inputs), answer(load(tmp_path), inputs), strict=True):
        assert torch.equal(got, want)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    save(tmp_path, torch.float32)
    weights = staged(tmp_path, torch.float32, torch.device("cpu"), [])
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    for name in ("embed.weight", "a.qkv_proj.weight", "norm.weight"):
        weights.take(name)
    with pytest.raises(CheckpointError, match=r"tensor \S+ in .*safetensors: the file was cut short while"):
        weights.finish()


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_gguf_file_in_pieces(device: torch.device) -> None:
    """The bundled model's: quantised, with query rows to be put in order."""
    checkpoint = open_checkpoint("")
    layout = Llama.layout(checkpoint.decoder)
    assert checkpoint.gguf is not None
    direct = open_weights(checkpoint, layout, torch.float32)
    source = GgufSource(checkpoint.gguf, checkpoint.decoder, permuted=True)
    reader = StagedReader(source, device, piece_bytes=1 << 17)
    weights = Weights(source, layout, torch.float32, None, device, reader)
    prefix = "model.layers.3"
    names = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj", "input_layernorm"]
    found = {name: weights.take(f"{prefix}.{name}.weight") for name in names}
    weights.finish()
    for name, tensor in found.items():
        assert torch.equal(tensor.cpu(), direct.take(f"{prefix}.{name}.weight")), name
