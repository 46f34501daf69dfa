"""Small random encoders whose heads have sizes that the GPU's kernels take, and the same model on the device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.checkpoint import Checkpoint, open_checkpoint
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.gpu.module import KernelLibrary
from engine.models.encoder import EncoderModel, load_encoder
from engine.runner.gpu.buckets import EncoderBuckets
from engine.runner.gpu.build_encoder import make_compute, pick_steps, try_step
from engine.runner.gpu.encoder import EncoderCompute, GpuEncoderRunner
from engine.runner.gpu.graphs import EagerSteps
from engine.runner.gpu.stream import CudaStream
from tests.emulation.stream import HostStream
from tests.engine.encoder_models import VOCAB, save

MAX_LEN = 200
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": MAX_LEN,
}
DISTIL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "dim": 128,
    "hidden_dim": 160,
    "n_layers": 2,
    "n_heads": 2,
    "max_position_embeddings": MAX_LEN,
}
DEBERTA: dict[str, Any] = SMALL | {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
MODERN: dict[str, Any] = SMALL | {
    "num_hidden_layers": 3,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# How transformers calls a family, and options.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SMALL),
    "bert-relu": ("Bert", SMALL | {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "roberta": ("Roberta", SMALL | {"type_vocab_size": 1, "max_position_embeddings": MAX_LEN + 2}),
    "albert": (
        "Albert",
        SMALL | {"embedding_size": 32, "num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "distilbert": ("DistilBert", DISTIL),
    "deberta-v3": (
        "DebertaV2",
        DEBERTA
        | {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True, "legacy": False},
    ),
    "deberta-c2p": (
        "DebertaV2",
        DEBERTA | {"pos_att_type": "c2p", "position_biased_input": True, "max_relative_positions": 30},
    ),
    "deberta-p2c": ("DebertaV2", DEBERTA | {"pos_att_type": ["p2c"]}),
    "modernbert": ("ModernBert", MODERN),
    "modernbert-biased": (
        "ModernBert",
        MODERN
        | {"classifier_pooling": "mean", "decoder_bias": False, "tie_word_embeddings": False}
        | dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True),
    ),
}
HEADS = {
    "embed": "Model",
    "classify": "ForSequenceClassification",
    "token_classify": "ForTokenClassification",
    "fill_mask": "ForMaskedLM",
}


def save_random(name: str, task: str, folder: Path) -> Checkpoint:
    """All vectors random too, in float32."""
    family, options = CONFIGS[name]
    labels = {"num_labels": 3} if task in ("classify", "token_classify") else {}
    config = getattr(transformers, f"{family}Config")(**options | labels)
    model = getattr(transformers, family + HEADS[task])(config).float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and key.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, 0.1)
    save(model, folder)
    return open_checkpoint(str(folder))


@dataclass(frozen=True, slots=True)
class Bench:
    """One checkpoint on the device, and its twin in float32."""

    library: KernelLibrary
    checkpoint: Checkpoint
    dtype: torch.dtype

    def twin(self) -> EncoderModel:
        return load_encoder(self.checkpoint, ReferenceEncoderOps(), torch.float32)

    def compute(self, buckets: EncoderBuckets) -> EncoderCompute:
        ops = GpuEncoderOps(self.library)
        model = load_encoder(self.checkpoint, ops, self.dtype, device=self.library.device)
        return make_compute(model, ops, self.library, buckets)

    def runner(self, max_inputs: int = 8, max_tokens: int = 400) -> GpuEncoderRunner:
        """As it is built, but for the sizes."""
        buckets, device = EncoderBuckets(max_inputs, max_tokens), self.library.device
        if device.type == "cpu":
            compute = self.compute(buckets)
            return GpuEncoderRunner(compute, EagerSteps(compute), buckets, MAX_LEN, device, HostStream())
        stream = CudaStream(device)
        with torch.inference_mode(), stream.current():
            compute = self.compute(buckets)
            try_step(compute, buckets)
        return GpuEncoderRunner(compute, pick_steps(compute), buckets, MAX_LEN, device, stream)
