"""A folder as transformers saves it: config.json, and beside it tokenizer and chat template."""

from dataclasses import replace
from pathlib import Path

from engine.checkpoint.checkpoint import Checkpoint, SpecialTokens
from engine.checkpoint.config import FAMILIES, Family, ModelConfig
from engine.checkpoint.encoder import ENCODER_FAMILIES, ENCODER_TASKS
from engine.checkpoint.encoder_folder import find_encoder_family, read_encoder
from engine.checkpoint.encoder_tokens import read_mask_token
from engine.checkpoint.fields import Fields
from engine.checkpoint.folder_rope import read_rope
from engine.checkpoint.generation import read_generation
from engine.checkpoint.geometry import check_geometry
from engine.checkpoint.json_file import read_json, read_optional, read_text
from engine.checkpoint.tokenizer import TokenizerFile


def open_folder(path: Path) -> Checkpoint:
    """Code that a folder brings along (`auto_map`, *.py) is never run."""
    fields = read_json(path / "config.json")
    generation = read_optional(path / "generation_config.json")
    special = _special(path, fields, generation)
    tokenizer = path / "tokenizer.json"
    encoder = find_encoder_family(fields)
    if encoder is not None:
        special = replace(special, mask_token=read_mask_token(path, encoder.mask_token))
    return Checkpoint(
        name=path.name,
        path=path,
        config=_config(fields, special) if encoder is None else read_encoder(path, fields, encoder),
        tokenizer=TokenizerFile(tokenizer) if tokenizer.is_file() else None,
        special=special,
        chat_templates=_templates(path),
        sampling=read_generation(generation),
    )


def _config(fields: Fields, special: SpecialTokens) -> ModelConfig:
    family = _family(fields)
    _refuse_unsupported(fields)
    num_heads, hidden_size = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    attention_bias = family.attention_bias_key and fields.flag("attention_bias", False)
    rope, max_context = read_rope(fields)
    config = ModelConfig(
        architecture=family.architecture,
        family=family.name,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads),
        head_dim=_head_dim(fields, family, hidden_size, num_heads),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=rope,
        max_context=max_context,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=_sliding_window(fields, family),
        qkv_bias=family.qkv_bias or attention_bias,
        o_bias=attention_bias,
        mlp_bias=family.mlp_bias_key and fields.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        bos_id=special.bos_id,
        eos_ids=special.eos_ids,
    )
    return check_geometry(config, fields.source)


def _family(fields: Fields) -> Family:
    names = fields.get("architectures")
    for family in FAMILIES:
        if names == [family.architecture]:
            return family
    decoders = ", ".join(family.architecture for family in FAMILIES)
    encoders = f"{', '.join(f.class_name for f in ENCODER_FAMILIES)} with {', '.join(ENCODER_TASKS)}"
    raise fields.refuse("architectures", names, f"one of {decoders}, or an encoder: {encoders}")


def _refuse_unsupported(fields: Fields) -> None:
    """Keys that would change what is computed."""
    fields.only("hidden_act", "silu")
    fields.only("partial_rotary_factor", 1.0)
    fields.only("use_sliding_window", False)
    layer_types = fields.get("layer_types")
    kinds = set(map(str, layer_types)) if isinstance(layer_types, list) else set[str]()
    if kinds - {"full_attention"}:
        raise fields.refuse("layer_types", sorted(kinds), "full_attention for all layers")
    quantization = fields.get("quantization_config")
    if quantization is not None:
        raise fields.refuse(
            "quantization_config", quantization, "none: weights in F32, F16 or BF16, or a GGUF file"
        )


def _head_dim(fields: Fields, family: Family, hidden_size: int, num_heads: int) -> int:
    if fields.get("head_dim") is not None:
        return fields.integer("head_dim")
    if family.head_dim:
        return family.head_dim
    if hidden_size % num_heads:
        raise fields.refuse("num_attention_heads", num_heads, f"a divisor of hidden_size, {hidden_size}")
    return hidden_size // num_heads


def _sliding_window(fields: Fields, family: Family) -> int:
    """null turns the window off, where a missing key leaves the family's own."""
    if not family.windowed_key or fields.values.get("sliding_window", family.window) is None:
        return 0
    return fields.integer("sliding_window", family.window)


def _special(path: Path, config: Fields, generation: Fields) -> SpecialTokens:
    """Either file may name the tokens that end a request, so both count."""
    tokenizer = read_optional(path / "tokenizer_config.json")
    eos_ids = (*config.token_ids("eos_token_id"), *generation.token_ids("eos_token_id"))
    return SpecialTokens(
        bos_id=config.token_id("bos_token_id"),
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        bos_token=_token_text(tokenizer, "bos_token"),
        eos_token=_token_text(tokenizer, "eos_token"),
    )


def _token_text(fields: Fields, key: str) -> str | None:
    """A token is a string, or an object whose `content` is one."""
    value = fields.get(key)
    if isinstance(value, dict):
        return fields.table(key).text("content")
    return None if value is None else fields.text(key)


def _templates(path: Path) -> dict[str, str]:
    """From chat_template.jinja and additional_chat_templates/NAME.jinja, else from tokenizer_config.json."""
    files = {p.stem: p for p in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    if (path / "chat_template.jinja").is_file():
        files["default"] = path / "chat_template.jinja"
    if files:
        return {name: read_text(file) for name, file in files.items()}
    fields = read_optional(path / "tokenizer_config.json")
    value = fields.get("chat_template")
    if isinstance(value, list):
        named = [fields.entry("chat_template", entry) for entry in value]
        return {entry.text("name"): entry.text("template") for entry in named}
    return {} if value is None else {"default": fields.text("chat_template")}
