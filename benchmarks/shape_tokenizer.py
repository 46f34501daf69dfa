"""A tokenizer for a shape with random weights: every id has a text of its own, so that every token is streamed."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.shapes import SHAPES

FIRST_BYTE = 256  # behind the ids that mark beginnings and ends


def write_tokenizer(shape: str, folder: Path) -> None:
    """tokenizer.json and its configuration. Bytes, and a word for every other id; nothing is merged."""
    config = SHAPES[shape]
    size, first, last = config["vocab_size"], config["bos_token_id"], config["eos_token_id"]
    assert isinstance(size, int) and isinstance(first, int) and isinstance(last, int)
    pieces = [f"Ġ{place:x}" for place in range(size)]
    pieces[FIRST_BYTE : FIRST_BYTE + 256] = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "bos_token": pieces[first],
        "eos_token": pieces[last],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
