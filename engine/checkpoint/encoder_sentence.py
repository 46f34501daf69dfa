"""The files sentence-transformers puts beside a model: what follows its last layer, its limit, its prompts."""

from dataclasses import dataclass, replace
from pathlib import Path

from engine.checkpoint.encoder import EncoderConfig, Nonlinearity, Pooling, Projection, Sentence, Similarity
from engine.checkpoint.error import CheckpointError
from engine.checkpoint.fields import Fields
from engine.checkpoint.json_file import read_json, read_optional, read_value

_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")  # in the order they may come in
_POOLINGS: dict[str, Pooling] = {  # by the flags of older files; vectors side by side are in this order
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean", "manhattan")
_OWN = "config_sentence_transformers.json"
_ACTIVATIONS: dict[str, Nonlinearity] = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
}


@dataclass(frozen=True, slots=True)
class Modules:
    """modules.json: which kinds there are, and the folder of each. Empty where there is no such file."""

    source: str
    entries: tuple[tuple[str, str], ...] = ()  # kind, folder
    max_len: int | None = None

    @property
    def present(self) -> bool:
        return bool(self.entries)

    @property
    def pools(self) -> bool:
        return bool(self.folders("Pooling"))

    def folders(self, kind: str) -> list[str]:
        return [folder for found, folder in self.entries if found == kind]


def read_modules(path: Path) -> Modules:
    """Errors: CheckpointError for modules that are not supported, or not in this order."""
    place = path / "modules.json"
    if not place.exists():
        return Modules(str(place), max_len=_max_len(path, False))
    listed = read_value(place)
    if not isinstance(listed, list) or not listed:
        raise CheckpointError(f"{place}: accepted is a list of modules")
    table = Fields(str(place), {})
    entries = tuple(_module(table.entry(str(i), entry)) for i, entry in enumerate(listed))
    kinds = [kind for kind, _ in entries]
    in_order = sorted(kinds, key=_KINDS.index) == kinds and kinds[0] == "Transformer"
    if not in_order or any(kinds.count(kind) > 1 for kind in _KINDS if kind != "Dense"):
        raise CheckpointError(
            f"{place}: modules {kinds}; accepted: Transformer, then Pooling, Dense and Normalize"
        )
    if entries[0][1]:
        raise CheckpointError(
            f'{place}: the Transformer is in {entries[0][1]!r}; accepted: the folder itself, ""'
        )
    return Modules(str(place), entries, _max_len(path, True))


def _module(fields: Fields) -> tuple[str, str]:
    name = fields.text("type")
    kind, folder = name.rpartition(".")[2], fields.text("path")
    if kind not in _KINDS or not name.startswith("sentence_transformers."):
        raise fields.refuse("type", name, "sentence_transformers' " + ", ".join(_KINDS))
    if folder != Path(folder).name or folder == ".." or not folder.isprintable() or len(folder) > 64:
        raise fields.refuse("path", folder, "a folder beside modules.json")
    return kind, folder


def _max_len(path: Path, present: bool) -> int | None:
    """`max_seq_length`; newer versions of sentence-transformers leave it to the tokenizer's limit."""
    for file in sorted(path.glob("sentence_*_config.json")):  # sentence_bert_config.json, and older names
        fields = read_json(file)
        fields.only("do_lower_case", False)
        fields.table("modality_config").table("text").only(
            "method_output_name", "last_hidden_state", "logits"
        )
        if fields.get("max_seq_length") is not None:
            return fields.integer("max_seq_length")
    tokenizer = read_optional(path / "tokenizer_config.json")
    limit = tokenizer.get("model_max_length")
    return int(tokenizer.number("model_max_length")) if present and limit is not None else None


def read_sentence(path: Path, modules: Modules, hidden_size: int) -> Sentence:
    """Without modules.json the mean of all tokens, not normalised: sentence-transformers' own default."""
    if not modules.present:
        return Sentence(("mean",))
    pooling = _pooling(read_json(path / modules.folders("Pooling")[0] / "config.json"))
    projections: list[Projection] = []
    size = hidden_size * len(pooling)
    for folder in modules.folders("Dense"):
        projections.append(_projection(path, folder, size))
        size = projections[-1].num_outputs
    own = read_optional(path / _OWN)
    num_kept = None if own.get("truncate_dim") is None else own.integer("truncate_dim")
    return Sentence(pooling, tuple(projections), bool(modules.folders("Normalize")), num_kept)


def _pooling(fields: Fields) -> tuple[Pooling, ...]:
    """`pooling_mode`, a name or a list of them; flags in older files; the mean where nothing is said."""
    fields.only("include_prompt", True)
    value = fields.get("pooling_mode")
    if value is None:
        flagged: tuple[Pooling, ...]
        flagged = tuple(name for key, name in _POOLINGS.items() if fields.flag(key, False))
        return flagged or ("mean",)
    names = value if isinstance(value, list) and value else [value]
    known: dict[str, Pooling] = {name: name for name in _POOLINGS.values()}
    if any(str(name) not in known for name in names):
        raise fields.refuse("pooling_mode", value, "of " + ", ".join(known))
    return tuple(known[str(name)] for name in names)


def _projection(path: Path, folder: str, num_inputs: int) -> Projection:
    fields = read_json(path / folder / "config.json")
    fields.only("in_features", num_inputs)
    fields.only("use_residual", False)
    for key in ("module_input_name", "module_output_name"):
        fields.only(key, "sentence_embedding")
    name = fields.text("activation_function", "torch.nn.modules.activation.Tanh")
    if name not in _ACTIVATIONS:
        raise fields.refuse("activation_function", name, "one of " + ", ".join(_ACTIVATIONS))
    num_outputs = fields.integer("out_features")
    return Projection(folder, num_inputs, num_outputs, fields.flag("bias", True), _ACTIVATIONS[name])


def read_prompts(path: Path, fields: Fields, config: EncoderConfig) -> EncoderConfig:
    """The prompts a server may put before texts, how vectors are compared, and whether they may be cut short."""
    own = read_optional(path / _OWN)
    if config.task != "embed":
        own.only("default_prompt_name", None)
    table = own.table("prompts")
    prompts = {name: table.text(name) for name in table.values if table.get(name) is not None}
    default = None if own.get("default_prompt_name") is None else own.text("default_prompt_name")
    if default is not None and default not in prompts:
        raise own.refuse("default_prompt_name", default, "one of " + ", ".join(prompts))
    dims = _dims(fields)
    matryoshka = bool(dims) or fields.flag("is_matryoshka", False)
    return replace(
        config,
        similarity=_similarity(own),
        prompts=prompts,
        default_prompt_name=default,
        matryoshka=matryoshka,
        matryoshka_dims=dims,
    )


def _similarity(own: Fields) -> Similarity:
    name = own.text("similarity_fn_name", "cosine")
    for known in _SIMILARITIES:
        if name == known:
            return known
    raise own.refuse("similarity_fn_name", name, "one of " + ", ".join(_SIMILARITIES))


def _dims(fields: Fields) -> tuple[int, ...]:
    value = fields.get("matryoshka_dimensions")
    dims = [] if value is None else value
    if not isinstance(dims, list) or any(not isinstance(dim, int) or dim < 1 for dim in dims):
        raise fields.refuse("matryoshka_dimensions", value, "a list of sizes")
    return tuple(sorted(dims))
