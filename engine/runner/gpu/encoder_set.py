"""Which kernels encoders ask for, found as kernel_set finds those of decoders."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from engine.checkpoint import Disentangled, EncoderConfig, Modern, Sentence, Sharing
from engine.config import EngineConfig, settle
from engine.kernels.gpu.encoder_attention import EncoderAttention, EncoderShape
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.gpu.encoder_pool import KINDS
from engine.kernels.gpu.shape import ELEMENTS
from engine.models import find_encoder
from engine.models.encoders.packed import PackedEncoder, encoder_layout
from engine.runner.gpu.build_encoder import make_buckets, make_compute, try_step
from engine.runner.gpu.kernel_set import NOWHERE, NUM_LAYERS, NoWeights, RecordingLibrary
from engine.weights import Weights


@dataclass(frozen=True, slots=True)
class EncoderSample:
    """An encoder, as far as kernels depend on it."""

    name: str
    config: EncoderConfig


def record_encoders(library: RecordingLibrary) -> None:
    """Every kernel there is, for all samples in both dtypes, and attention for sizes that no sample has."""
    for dtype in ELEMENTS:
        for sample in encoder_samples():
            record_encoder(sample.config, dtype, library)
        for head_dim in (96, 128):
            EncoderAttention(library, EncoderShape(8, head_dim, dtype, 0, head_dim**-0.5))


def record_encoder(encoder: EncoderConfig, dtype: torch.dtype, library: RecordingLibrary) -> None:
    """What serving this model may launch."""
    family = find_encoder(encoder.family)
    layout = encoder_layout(encoder, family)
    ops = GpuEncoderOps(library)
    weights = Weights(NoWeights(layout), layout, dtype, None, NOWHERE)
    model = PackedEncoder(encoder, family, weights, ops)
    buckets = make_buckets(settle(EngineConfig(), "cuda", encodes=True), encoder.max_len)
    try_step(make_compute(model, ops, library, buckets), buckets)


def encoder_samples() -> Iterator[EncoderSample]:
    """The families there are, sizes of usual models, every pooling, a head of each kind."""
    bert = _encoder("bert", 30522, (768, 3072, 12), num_positions=512, num_types=2)
    mean = Sentence(pooling=("mean",), normalize=True)
    yield EncoderSample("BERT base", replace(bert, sentence=Sentence(KINDS)))
    minilm = _encoder("bert", 30522, (384, 1536, 12), num_positions=512, num_types=2)
    yield EncoderSample("all-MiniLM-L6-v2", replace(minilm, sentence=mean))
    large = _encoder("roberta", 250002, (1024, 4096, 16), num_positions=514, num_types=1)
    classes = replace(large, first_position=2, task="classify", labels=("relevant",))
    yield EncoderSample("BGE reranker large", classes)
    albert = _encoder("albert", 30000, (768, 3072, 12), num_positions=512, num_types=2)
    albert = replace(albert, embedding_size=128, sharing=Sharing(1, 1), hidden_act="gelu_tanh")
    yield EncoderSample("ALBERT base", replace(albert, sentence=mean))
    distil = _encoder("distilbert", 30522, (768, 3072, 12), num_positions=512)
    yield EncoderSample("DistilBERT", replace(distil, task="fill_mask", mask_id=103))
    modern = _encoder("modernbert", 50368, (768, 1152, 12))
    yield EncoderSample("ModernBERT base", replace(modern, modern=_modern(), sentence=mean))
    deberta = _encoder("deberta", 128100, (768, 3072, 12))
    yield EncoderSample("DeBERTa v3 base", replace(deberta, disentangled=_disentangled(), sentence=mean))
    wide = _encoder("roberta", 250880, (2560, 10240, 40), num_positions=514, num_types=1)
    yield EncoderSample("XLM-R XL", replace(wide, first_position=2, sentence=mean))


def _encoder(
    family: str, vocab: int, sizes: tuple[int, int, int], num_positions: int = 0, num_types: int = 0
) -> EncoderConfig:
    """sizes: hidden, inner, heads."""
    hidden, inner, num_heads = sizes
    return EncoderConfig(
        architecture=family,
        family=family,
        task="embed",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=NUM_LAYERS,
        num_heads=num_heads,
        head_dim=hidden // num_heads,
        norm_eps=1e-12,
        hidden_act="gelu",
        max_len=512,
        embedding_size=hidden,
        num_positions=num_positions,
        num_types=num_types,
    )


def _disentangled() -> Disentangled:
    return Disentangled(
        relative=True,
        num_buckets=256,
        max_distance=512,
        content_to_position=True,
        position_to_content=True,
        shared=True,
        normed=True,
        legacy_head=False,
    )


def _modern() -> Modern:
    """A global layer and a local one."""
    return Modern(
        windowed=(False, True),
        window=128,
        theta=160000.0,
        windowed_theta=10000.0,
        attention_bias=False,
        mlp_bias=False,
        norm_bias=False,
        head_bias=False,
        decoder_bias=True,
    )
