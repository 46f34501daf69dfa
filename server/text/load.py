"""A checkpoint's tokenizer and chat template."""

import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers

from engine.checkpoint import Checkpoint, CheckpointError, EncoderConfig, GgufTokenizer, TokenizerFile
from server.text.errors import ModelTextError
from server.text.gguf import build_gguf
from server.text.input_tokenizer import InputTokenizer
from server.text.template import ChatTemplate
from server.text.tokenizer import Tokenizer, is_panic

_MAX_BYTES = 256 << 20  # of a tokenizer.json
_CHARSMAP = re.compile(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"')


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Raises ModelTextError when there is none or it is of a kind we do not support."""
    if checkpoint.tokenizer is None:
        raise ModelTextError(f"{checkpoint.path}: tokenizer.json is missing")
    source = checkpoint.tokenizer
    with _refusals(source.path if isinstance(source, TokenizerFile) else checkpoint.path):
        match source:
            case TokenizerFile(path=path):
                backend = _read(path)
            case GgufTokenizer():
                backend = build_gguf(source.vocabulary(), checkpoint.special)
        if isinstance(checkpoint.config, EncoderConfig):
            return InputTokenizer(backend, checkpoint.special, checkpoint.config.vocab_size)
        return Tokenizer(backend, checkpoint.special, checkpoint.config.vocab_size)


def load_template(checkpoint: Checkpoint, tokenizer: Tokenizer, path: str = "") -> ChatTemplate:
    """The template in the file at `path`, or, for "", the model's own. Raises ModelTextError."""
    if not path:
        sources = checkpoint.chat_templates
    else:
        try:
            sources = {"default": Path(path).expanduser().read_text("utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise ModelTextError(f"chat template {path!r} cannot be read: {error}") from error
    return ChatTemplate(sources, _special_texts(checkpoint, tokenizer))


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Raises ModelTextError for whatever the library finds wrong; it raises no narrower class than Exception."""
    try:
        yield
    except (CheckpointError, ModelTextError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ModelTextError(f"{path}: not a tokenizer the tokenizers library can use ({error})") from error


def _read(path: Path) -> tokenizers.Tokenizer:
    if path.stat().st_size > _MAX_BYTES:
        raise ModelTextError(f"{path} has {path.stat().st_size} bytes; accepted: up to {_MAX_BYTES}")
    content = path.read_bytes()
    for found in _CHARSMAP.finditer(content):
        _check_charsmap(path, found[1])
    return tokenizers.Tokenizer.from_buffer(content)


def _check_charsmap(path: Path, written: bytes) -> None:
    """The library makes room for as many entries as the table says it has, and ends the process where there is none."""
    table = b64decode(written)
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size > len(table) - 4:
        raise ModelTextError(
            f"{path}: precompiled_charsmap is cut short ({len(table)} bytes; it begins with {size})"
        )


def _special_texts(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, str]:
    """The names a template may use: `bos_token` and the like. One whose id the model does not have is none."""
    special = checkpoint.special
    ids = {
        "bos_token": special.bos_id,
        "eos_token": special.eos_ids[0] if special.eos_ids else None,
        "unk_token": special.unk_id,
        "pad_token": special.pad_id,
    }
    texts = {
        name: tokenizer.token_piece(token_id)
        for name, token_id in ids.items()
        if token_id is not None and token_id < tokenizer.vocab_size
    }
    given = {"bos_token": special.bos_token, "eos_token": special.eos_token}
    return texts | {name: text for name, text in given.items() if text is not None}
