"""Rotary embeddings in config.json: `rope_parameters`, or in older files `rope_theta` and `rope_scaling`."""

from engine.checkpoint.config import LinearScaling, Llama3Scaling, Rope, RopeScaling, YarnScaling
from engine.checkpoint.fields import Fields
from engine.checkpoint.geometry import stretched, yarn_attention_factor

_DEFAULT_THETA = 10000.0


def read_rope(fields: Fields) -> tuple[Rope, int]:
    """The embedding, and the context it was made for."""
    context = fields.integer("max_position_embeddings")
    scaling = _scaling(fields, context)
    theta = fields.table("rope_parameters").number("rope_theta", fields.number("rope_theta", _DEFAULT_THETA))
    if isinstance(scaling, YarnScaling):
        context = stretched(context, scaling.factor, scaling.original_context)
    return Rope(theta, scaling), context


def _scaling(fields: Fields, context: int) -> RopeScaling | None:
    table = fields.table("rope_scaling" if fields.get("rope_parameters") is None else "rope_parameters")
    key = "rope_type" if table.get("rope_type") is not None else "type"
    table.only("partial_rotary_factor", 1.0)
    match table.text(key, "default"):
        case "default":
            return None
        case "linear":
            return LinearScaling(table.number("factor"))
        case "llama3":
            return Llama3Scaling(
                factor=table.number("factor"),
                low_freq_factor=table.number("low_freq_factor"),
                high_freq_factor=table.number("high_freq_factor"),
                original_context=table.integer("original_max_position_embeddings", context),
            )
        case "yarn":
            return _yarn(table, context)
        case kind:
            raise table.refuse(key, kind, "default, linear, llama3 or yarn")


def _yarn(table: Fields, context: int) -> YarnScaling:
    factor = table.number("factor")
    attention = yarn_attention_factor(factor)
    if table.get("mscale") is not None and table.get("mscale_all_dim") is not None:
        scales = table.number("mscale"), table.number("mscale_all_dim")
        attention = yarn_attention_factor(factor, scales[0]) / yarn_attention_factor(factor, scales[1])
    return YarnScaling(
        factor=factor,
        original_context=table.integer("original_max_position_embeddings", context),
        attention_factor=table.number("attention_factor", attention),
        beta_fast=table.number("beta_fast", 32.0),
        beta_slow=table.number("beta_slow", 1.0),
        truncate=table.flag("truncate", True),
    )
