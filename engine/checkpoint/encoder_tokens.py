"""The mask token, as a folder's tokenizer files give it."""

from collections.abc import Iterator
from pathlib import Path

from engine.checkpoint.error import CheckpointError
from engine.checkpoint.fields import Fields
from engine.checkpoint.json_file import read_optional, read_text

_SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def read_mask_token(path: Path, usual: str) -> str:
    """Its text: a string, or an object whose `content` is one; the usual one where no file names it."""
    for file in _SPECIAL_FILES:
        fields = read_optional(path / file)
        value = fields.get("mask_token")
        if isinstance(value, dict):
            return fields.table("mask_token").text("content")
        if value is not None:
            return fields.text("mask_token")
    return usual


def read_mask_id(path: Path, config: Fields, usual: str) -> int:
    """Errors: CheckpointError where no file tells: without it there is nothing to fill."""
    own = config.token_id("mask_token_id")
    if own is not None:
        return own
    token = read_mask_token(path, usual)
    for known in _ids(path, token):
        return known
    raise CheckpointError(f"{path}: the mask token {token!r} has no id in tokenizer.json or vocab.txt")


def _ids(path: Path, token: str) -> Iterator[int]:
    """Every id a file gives the token, the more certain first."""
    tokenizer = read_optional(path / "tokenizer.json")
    added = tokenizer.get("added_tokens")
    for entry in added if isinstance(added, list) else []:
        fields = tokenizer.entry("added_tokens", entry)
        found = fields.token_id("id")
        if fields.get("content") == token and found is not None:
            yield found
    vocabulary = tokenizer.table("model").get("vocab")
    if isinstance(vocabulary, dict) and isinstance(vocabulary.get(token), int):
        yield vocabulary[token]
    lines = path / "vocab.txt"
    if lines.is_file():
        texts = read_text(lines).split("\n")
        if token in texts:
            yield texts.index(token)
