"""A small random decoder with a token that it cannot compute, and a tokenizer that cannot read some texts."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

POISON = "<poison>"  # its embedding is not a number
UNREADABLE = "q" * 40 + "!"  # the regular expression gives up on it, and the library panics
ENDLESS = Regex("(?:q|q|qq)+$")
EOS = "<end>"
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def write_poisoned(folder: Path) -> None:
    """A folder that can be served."""
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
    ends = {"eos_token_id": tokenizer.token_to_id(EOS), "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps(SHAPE | ends | {"vocab_size": vocab_size}))
    tensors = random_tensors(vocab_size)
    tensors["model.embed_tokens.weight"][tokenizer.token_to_id(POISON)] = torch.nan
    save_file(tensors, folder / "model.safetensors")


def make_tokenizer() -> Tokenizer:
    """A byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(alphabet)}, merges=[]))
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(ENDLESS, "isolated"), by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS), AddedToken(POISON)])
    return tokenizer


def random_tensors(vocab_size: int) -> dict[str, torch.Tensor]:
    """A whole model's."""
    generator = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (vocab_size, 64),
        "lm_head": (vocab_size, 64),
        "model.norm": (64,),
    }
    matrices = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
    matrices = {f"self_attn.{name}": shape for name, shape in matrices.items()}
    matrices |= {"mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96)}
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in matrices.items()}
        shapes |= {f"model.layers.{layer}.{name}_layernorm": (64,) for name in ("input", "post_attention")}
    return {f"{name}.weight": _random(shape, generator) for name, shape in shapes.items()}


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape)
    matrix: torch.Tensor = torch.randn(shape, generator=generator) / shape[1] ** 0.5
    return matrix
