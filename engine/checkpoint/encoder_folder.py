"""An encoder's config.json, and what the files beside it add."""

from dataclasses import replace
from pathlib import Path

from engine.checkpoint.encoder import (
    ENCODER_FAMILIES,
    ENCODER_TASKS,
    EncoderConfig,
    EncoderFamily,
    Nonlinearity,
    Sharing,
)
from engine.checkpoint.encoder_deberta import read_disentangled
from engine.checkpoint.encoder_labels import read_activation, read_labels
from engine.checkpoint.encoder_modern import read_modern
from engine.checkpoint.encoder_sentence import Modules, read_modules, read_prompts, read_sentence
from engine.checkpoint.encoder_tokens import read_mask_id
from engine.checkpoint.error import CheckpointError
from engine.checkpoint.fields import Fields
from engine.checkpoint.geometry import MAX_LAYERS, MAX_VOCAB
from engine.request import Task

_NONLINEARITIES: dict[str, Nonlinearity] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}


def find_encoder_family(fields: Fields) -> EncoderFamily | None:
    """By `architectures`, or by `model_type` where a file has only that; None: the file is no encoder's."""
    names = fields.get("architectures")
    if names is None:
        return next((f for f in ENCODER_FAMILIES if f.model_type == fields.get("model_type")), None)
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    for family in ENCODER_FAMILIES:
        if isinstance(name, str) and name.startswith(
            (f"{family.class_name}For", f"{family.class_name}Model")
        ):
            return family
    return None


def read_encoder(path: Path, fields: Fields, family: EncoderFamily) -> EncoderConfig:
    """Errors: CheckpointError for what is missing, and for any key that asks for something not supported."""
    _refuse_unsupported(fields)
    modules = read_modules(path)
    architecture, task = _architecture(fields, family, modules)
    config = _family_parts(fields, _common(fields, family, architecture, task))
    config = replace(config, max_len=min(config.max_len, modules.max_len or config.max_len))
    return _check(_task_parts(path, fields, family, modules, config), fields)


def _refuse_unsupported(fields: Fields) -> None:
    """Keys that would change what is computed."""
    fields.only("position_embedding_type", "absolute")
    fields.only("is_decoder", False)
    fields.only("add_cross_attention", False)
    fields.only("pruned_heads", {})
    if fields.get("quantization_config") is not None:
        accepted = "none: weights in F32, F16 or BF16"
        raise fields.refuse("quantization_config", fields.get("quantization_config"), accepted)


def _architecture(fields: Fields, family: EncoderFamily, modules: Modules) -> tuple[str, Task]:
    """The base model serves under modules that pool, whichever head its file names."""
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) else f"{family.class_name}Model"
    if modules.pools:
        return name, "embed"
    task = ENCODER_TASKS.get(name.removeprefix(family.class_name))
    if task is None:
        accepted = "one of " + ", ".join(family.class_name + suffix for suffix in ENCODER_TASKS)
        raise fields.refuse("architectures", names, accepted)
    if modules.present and task == "embed":
        raise CheckpointError(f"{modules.source}: no Pooling; accepted: a Transformer, then a Pooling")
    return name, task


def _common(fields: Fields, family: EncoderFamily, architecture: str, task: Task) -> EncoderConfig:
    distil = family.name == "distilbert"  # which has names of its own
    hidden_size = fields.integer("dim" if distil else "hidden_size")
    num_heads = fields.integer("n_heads" if distil else "num_attention_heads")
    if hidden_size % num_heads:
        raise fields.refuse("num_attention_heads", num_heads, f"a divisor of hidden_size, {hidden_size}")
    num_layers, vocab_size = (
        fields.integer("n_layers" if distil else "num_hidden_layers"),
        fields.integer("vocab_size"),
    )
    if num_layers > MAX_LAYERS:
        raise fields.refuse("num_hidden_layers", num_layers, f"up to {MAX_LAYERS}")
    if vocab_size > MAX_VOCAB:
        raise fields.refuse("vocab_size", vocab_size, f"up to {MAX_VOCAB}")
    num_positions = fields.integer("max_position_embeddings", 512)
    return EncoderConfig(
        architecture=architecture,
        family=family.name,
        task=task,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=fields.integer("hidden_dim" if distil else "intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=hidden_size // num_heads,
        norm_eps=1e-12 if distil else fields.number("layer_norm_eps", 1e-12),
        hidden_act=_nonlinearity(fields, "activation" if distil else _act_key(family), family.hidden_act),
        max_len=num_positions,
        embedding_size=hidden_size,
        num_positions=num_positions,
        num_types=0 if distil else fields.count("type_vocab_size", family.num_types),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        head_act=family.head_act,
    )


def _act_key(family: EncoderFamily) -> str:
    return "hidden_activation" if family.name == "modernbert" else "hidden_act"


def _family_parts(fields: Fields, config: EncoderConfig) -> EncoderConfig:
    match config.family:
        case "roberta":
            pad_id = fields.token_id("pad_token_id")
            first = (
                2 if pad_id is None else pad_id + 1
            )  # the row of padding, and those before it, are not used
            return replace(config, first_position=first, max_len=config.num_positions - first)
        case "albert":
            size = fields.integer("embedding_size", 128)
            sharing = Sharing(fields.integer("num_hidden_groups", 1), fields.integer("inner_group_num", 1))
            return replace(config, embedding_size=size, sharing=sharing)
        case "deberta":
            act = _nonlinearity(fields, "pooler_hidden_act", "gelu")
            return replace(read_disentangled(fields, config), head_act=act)
        case "modernbert":
            act = _nonlinearity(fields, "classifier_activation", "gelu")
            return replace(read_modern(fields, config), head_act=act)
        case _:
            return config


def _nonlinearity(fields: Fields, key: str, default: str) -> Nonlinearity:
    name = fields.text(key, default)
    if name not in _NONLINEARITIES:
        raise fields.refuse(key, name, "one of " + ", ".join(_NONLINEARITIES))
    return _NONLINEARITIES[name]


def _task_parts(
    path: Path, fields: Fields, family: EncoderFamily, modules: Modules, config: EncoderConfig
) -> EncoderConfig:
    config = read_prompts(path, fields, config)
    match config.task:
        case "embed":
            return replace(config, sentence=read_sentence(path, modules, config.hidden_size))
        case "fill_mask":
            return replace(
                config, mask_id=read_mask_id(path, fields, family.mask_token), activation="softmax"
            )
        case "token_classify":
            return replace(config, labels=read_labels(fields), activation="softmax")
        case _:
            labels = read_labels(fields)
            return replace(config, labels=labels, activation=read_activation(path, fields, len(labels)))


def _check(config: EncoderConfig, fields: Fields) -> EncoderConfig:
    if config.max_len < 1:
        raise fields.refuse("max_position_embeddings", config.num_positions, "room for one token or more")
    if config.sharing is not None and config.num_layers < config.sharing.num_groups:
        raise fields.refuse("num_hidden_groups", config.sharing.num_groups, f"up to {config.num_layers}")
    if config.sharing is not None and config.sharing.num_blocks > MAX_LAYERS:
        raise fields.refuse("inner_group_num", config.sharing.num_blocks, f"up to {MAX_LAYERS}")
    if config.mask_id is not None and config.mask_id >= config.vocab_size:
        raise fields.refuse("vocab_size", config.vocab_size, f"above the mask token's id, {config.mask_id}")
    return config
