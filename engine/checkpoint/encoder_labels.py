"""What a classifier's outputs are called, and what makes scores of them."""

from pathlib import Path

from engine.checkpoint.encoder import Activation
from engine.checkpoint.fields import Fields
from engine.checkpoint.json_file import read_optional

_MAX_LABELS = 1 << 20
_CROSS_ENCODER_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
}


def read_labels(fields: Fields) -> tuple[str, ...]:
    """`id2label`, else LABEL_0 and on, two unless `num_labels` says how many."""
    if fields.get("id2label") is None:
        num_labels = fields.integer("num_labels", 2)
        if num_labels > _MAX_LABELS:
            raise fields.refuse("num_labels", num_labels, f"up to {_MAX_LABELS}, or their names in id2label")
        return tuple(f"LABEL_{i}" for i in range(num_labels))
    table = fields.table("id2label")
    names = {str(key): table.text(str(key)) for key in table.values}
    places = [str(i) for i in range(len(names))]
    if not names or set(places) != set(names):
        raise fields.refuse("id2label", dict(table.values), "a name for each number from 0 on")
    return tuple(names[place] for place in places)


def read_activation(path: Path, fields: Fields, num_labels: int) -> Activation:
    """A cross-encoder's own choice; else as transformers' pipelines choose: by problem_type, then by the labels."""
    chosen = _cross_encoder_activation(path, fields)
    if chosen is not None:
        return chosen
    kinds = ("regression", "multi_label_classification", "single_label_classification")
    fields.only("problem_type", *kinds)
    match fields.get("problem_type"):
        case "regression":
            return "identity"
        case "multi_label_classification":
            return "sigmoid"
        case _:
            return "sigmoid" if num_labels == 1 else "softmax"


def _cross_encoder_activation(path: Path, fields: Fields) -> Activation | None:
    """Where sentence-transformers keeps it, in its versions 5 to 2."""
    places = (
        (fields.table("sentence_transformers"), "activation_fn"),
        (read_optional(path / "config_sentence_transformers.json"), "activation_fn"),
        (fields, "sbert_ce_default_activation_function"),
    )
    for place, key in places:
        if place.get(key) is not None:
            return _named(place, key)
    return None


def _named(place: Fields, key: str) -> Activation:
    name = place.text(key)
    if name not in _CROSS_ENCODER_ACTIVATIONS:
        raise place.refuse(key, name, " or ".join(_CROSS_ENCODER_ACTIVATIONS))
    return _CROSS_ENCODER_ACTIVATIONS[name]
