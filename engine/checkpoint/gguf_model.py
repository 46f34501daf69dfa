"""A GGUF file's keys as a model's configuration. The keys are specified with the format."""

from pathlib import Path

from engine.checkpoint.checkpoint import Checkpoint, SpecialTokens
from engine.checkpoint.config import (
    FAMILIES,
    Family,
    FrequencyFactors,
    LinearScaling,
    ModelConfig,
    Rope,
    RopeScaling,
    YarnScaling,
)
from engine.checkpoint.error import CheckpointError
from engine.checkpoint.fields import Fields
from engine.checkpoint.generation import read_gguf_generation
from engine.checkpoint.geometry import check_geometry, stretched, yarn_attention_factor
from engine.checkpoint.gguf import GgufFile, read_gguf
from engine.checkpoint.tokenizer import GgufTokenizer

ROPE_FACTORS = "rope_freqs.weight"


def open_gguf(path: Path, name: str) -> Checkpoint:
    file = read_gguf(path)
    fields = Fields(str(path), file.scalars)
    special = _special(fields)
    return Checkpoint(
        name=name,
        path=path,
        config=_config(file, fields, special),
        tokenizer=GgufTokenizer(file),
        special=special,
        chat_templates=_templates(file),
        gguf=file,
        sampling=read_gguf_generation(fields),
    )


def _config(file: GgufFile, fields: Fields, special: SpecialTokens) -> ModelConfig:
    family = _family(fields)
    arch = _under(fields, family.gguf)
    for key in ("expert_count", "attention.value_length_mla"):
        arch.only(key, 0)
    num_heads, hidden_size = arch.integer("attention.head_count"), arch.integer("embedding_length")
    head_dim = arch.integer("attention.key_length", hidden_size // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        arch.only(key, head_dim)
    config = ModelConfig(
        architecture=family.architecture,
        family=family.name,
        vocab_size=_vocab_size(file),
        hidden_size=hidden_size,
        intermediate_size=arch.integer("feed_forward_length"),
        num_layers=arch.integer("block_count"),
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(file, arch, family, num_heads),
        head_dim=head_dim,
        norm_eps=arch.number("attention.layer_norm_rms_epsilon"),
        rope=Rope(arch.number("rope.freq_base", 10000.0), _scaling(file, arch)),
        max_context=_max_context(arch),
        tie_embeddings="output.weight" not in file.tensors,
        sliding_window=arch.integer("attention.sliding_window")
        if arch.get("attention.sliding_window")
        else 0,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        o_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_gate.bias" in file.tensors,
        qk_norm=family.qk_norm,
        bos_id=special.bos_id,
        eos_ids=special.eos_ids,
    )
    return check_geometry(config, fields.source)


def _family(fields: Fields) -> Family:
    name = fields.text("general.architecture")
    for family in FAMILIES:
        if family.gguf == name:
            return family
    known = ", ".join(sorted({f.gguf for f in FAMILIES}))
    raise CheckpointError(f"{fields.source}: general.architecture is {name!r}; supported: {known}")


def _under(fields: Fields, arch: str) -> Fields:
    """The keys of one architecture, without its name before them."""
    start = f"{arch}."
    values = {key.removeprefix(start): value for key, value in fields.values.items() if key.startswith(start)}
    return Fields(fields.source, values, start)


def _vocab_size(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(f"{file.path}: tensor token_embd.weight is missing")
    return embedding.shape[0]


def _num_kv_heads(file: GgufFile, arch: Fields, family: Family, num_heads: int) -> int:
    counts = set(file.numbers(f"{family.gguf}.attention.head_count_kv"))
    if not counts:
        return arch.integer("attention.head_count_kv", num_heads)
    if len(counts) > 1:
        raise arch.refuse("attention.head_count_kv", sorted(counts), "one number for all layers")
    return Fields(arch.source, {"attention.head_count_kv": counts.pop()}, arch.prefix).integer(
        "attention.head_count_kv"
    )


def _max_context(arch: Fields) -> int:
    context = arch.integer("context_length")
    if arch.get("rope.scaling.type") != "yarn":
        return context
    original = arch.integer("rope.scaling.original_context_length", context)
    return stretched(context, arch.number("rope.scaling.factor"), original)


def _scaling(file: GgufFile, arch: Fields) -> RopeScaling | None:
    if ROPE_FACTORS in file.tensors:
        return FrequencyFactors(file.floats(file.tensors[ROPE_FACTORS]))
    match arch.text("rope.scaling.type", "none"):
        case "none":
            return None
        case "linear":
            return LinearScaling(arch.number("rope.scaling.factor"))
        case "yarn":
            factor = arch.number("rope.scaling.factor")
            return YarnScaling(
                factor=factor,
                original_context=arch.integer(
                    "rope.scaling.original_context_length", arch.integer("context_length")
                ),
                attention_factor=yarn_attention_factor(factor) * arch.number("rope.scaling.attn_factor", 1.0),
                beta_fast=arch.number("rope.scaling.yarn_beta_fast", 32.0),
                beta_slow=arch.number("rope.scaling.yarn_beta_slow", 1.0),
            )
        case kind:
            raise arch.refuse("rope.scaling.type", kind, "none, linear or yarn")


def _special(fields: Fields) -> SpecialTokens:
    ends = (fields.token_id(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    return SpecialTokens(
        bos_id=fields.token_id("tokenizer.ggml.bos_token_id"),
        eos_ids=tuple(dict.fromkeys(i for i in ends if i is not None)),
        unk_id=fields.token_id("tokenizer.ggml.unknown_token_id"),
        pad_id=fields.token_id("tokenizer.ggml.padding_token_id"),
        add_bos=_maybe_flag(fields, "tokenizer.ggml.add_bos_token"),
        add_eos=_maybe_flag(fields, "tokenizer.ggml.add_eos_token"),
    )


def _maybe_flag(fields: Fields, key: str) -> bool | None:
    return None if fields.get(key) is None else fields.flag(key, False)


def _templates(file: GgufFile) -> dict[str, str]:
    """`tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for further ones."""
    key = "tokenizer.chat_template"
    found = {
        k.removeprefix(key).removeprefix(".") or "default": v
        for k, v in file.scalars.items()
        if k.startswith(key)
    }
    return {name: text for name, text in found.items() if isinstance(text, str)}
