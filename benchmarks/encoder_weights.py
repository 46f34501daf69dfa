"""BERT-base with random weights: the same for this product's layers and for torch's, whatever the backend."""

import torch

from benchmarks.encoder_cells import ELEMENT, HEAD_DIM, HIDDEN, INNER, NORM_EPS, NUM_HEADS, NUM_LAYERS
from benchmarks.encoder_layers import LayerWeights, NormWeights
from engine.checkpoint import EncoderConfig, Sentence
from engine.kernels.encoder_ops import EncoderOps
from engine.models.encoders.bert import BERT, NAMES
from engine.models.encoders.packed import encoder_layout
from engine.models.encoders.post_norm import PostNormTrunk
from engine.models.encoders.tensors import Tensors
from engine.weights import Weights
from engine.weights.dummy import DummySource

MAX_LEN = 1024


def bert_config() -> EncoderConfig:
    """BERT-base, made for inputs as long as the experiment's."""
    return EncoderConfig(
        architecture="BertModel",
        family="bert",
        task="embed",
        vocab_size=30522,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_layers=NUM_LAYERS,
        num_heads=NUM_HEADS,
        head_dim=HEAD_DIM,
        norm_eps=NORM_EPS,
        hidden_act="gelu",
        max_len=MAX_LEN,
        embedding_size=HIDDEN,
        num_positions=MAX_LEN,
        num_types=2,
        sentence=Sentence(("mean",)),
    )


def build_trunk(ops: EncoderOps, device: torch.device, dtype: torch.dtype = ELEMENT) -> PostNormTrunk:
    """As it is served."""
    trunk = BERT.build(bert_config(), Tensors(_open(device, dtype), ops))
    assert isinstance(trunk, PostNormTrunk)
    return trunk


def plain_layers(device: torch.device, dtype: torch.dtype = ELEMENT) -> list[LayerWeights]:
    """The same numbers as build_trunk's."""
    weights = _open(device, dtype)
    return [_take_layer(weights, f"encoder.layer.{layer}") for layer in range(NUM_LAYERS)]


def _open(device: torch.device, dtype: torch.dtype) -> Weights:
    layout = encoder_layout(bert_config(), BERT)
    return Weights(DummySource(layout.shapes), layout, dtype, None, device)


def _take_layer(weights: Weights, prefix: str) -> LayerWeights:
    def linear(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return weights.take(f"{prefix}.{name}.weight"), weights.take(f"{prefix}.{name}.bias")

    def norm(name: str) -> NormWeights:
        weight, bias = linear(name)
        return NormWeights(weight, bias, weight.float(), bias.float())

    return LayerWeights(
        *linear(NAMES.qkv),
        *linear(NAMES.o),
        norm(NAMES.attention_norm),
        *linear(NAMES.up),
        *linear(NAMES.down),
        norm(NAMES.mlp_norm),
    )
