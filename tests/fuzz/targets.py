"""What is fuzzed: each target takes any bytes, and raises for nothing but a fault of ours."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.checkpoint import CheckpointError, open_checkpoint
from server.errors import ApiError
from server.schema.answer import Text
from server.sse import error_event, event
from server.text.errors import ModelTextError, TextError, TokenizerFault
from server.text.load import load_template, load_tokenizer
from server.text.stop import StopStrings
from server.text.template import ChatTemplate
from tests.fuzz.raw_folder import CONFIG, TOKENIZER

Target = Callable[[bytes, Path], None]
CHAT = [{"role": "user", "content": "Hi"}]


def _load(path: Path) -> None:
    """All that a server process reads of a model."""
    try:
        checkpoint = open_checkpoint(str(path))
        tokenizer = load_tokenizer(checkpoint)
        load_template(checkpoint, tokenizer)
    except (CheckpointError, ModelTextError) as error:
        assert str(error).isprintable() and len(str(error)) < 4000, "a refusal is fit for a terminal"
        assert str(path) in str(error) or isinstance(error, ModelTextError), "and says whose it is"
        return
    try:
        token_ids = tokenizer.encode("ab a b, ab?")
        tokenizer.decode(token_ids)
    except (TextError, TokenizerFault):
        return
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in token_ids)


def gguf(data: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data)
    _load(path)


def config(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    _load(folder)


def tokenizer(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_bytes(data)
    _load(folder)


def safetensors(data: bytes, folder: Path) -> None:
    import torch

    from engine.weights.safetensors import SafetensorsSource

    (folder / "model.safetensors").write_bytes(data)
    try:
        source = SafetensorsSource(folder)
        for name, shape in source.shapes.items():
            out = torch.empty(shape)
            source.read(name, out)
            for piece in source.pieces(name, 64):
                piece.read(torch.empty(piece.num_elements, dtype=piece.dtype))
    except CheckpointError as error:
        assert str(folder) in str(error) and str(error).isprintable()


def template(data: bytes, folder: Path) -> None:
    source = data.decode(errors="replace")
    try:
        ChatTemplate({"default": source}, {"bos_token": "<s>"}, max_seconds=0.5).render(CHAT)
    except (ModelTextError, TextError) as error:
        assert str(error)


def sse(data: bytes, folder: Path) -> None:
    """Whatever a model says is one event, and comes out as it went in."""
    text = data.decode(errors="replace")
    for sent in (event(Text(prompt=text)), error_event(ApiError(500, text))):
        lines = sent.split(b"\n")
        assert lines[1:] == [b"", b""] and lines[0].startswith(b"data: ") and b"\r" not in sent
        found = msgspec.json.decode(lines[0].removeprefix(b"data: "))
        assert text in (found.get("prompt"), found.get("error", {}).get("message"))


def stop(data: bytes, folder: Path) -> None:
    """Stop strings, a zero byte between them, then a text in pieces: as searching in the whole text."""
    *stops, text = data.decode(errors="replace").split("\0")[:6]
    stops = [stop for stop in stops if stop]
    if not stops:
        return
    watcher, shown, found = StopStrings(stops), "", None
    size = 1 + len(data) % 7
    for start in range(0, len(text), size):
        new, found = watcher.push(text[start : start + size])
        shown += new
        if found is not None:
            break
    ends = [(text.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if found is None:
        assert not ends and shown + watcher.flush() == text
    else:
        end, _, expected = min(ends)
        assert found == expected and shown == text[: end - len(expected)]


TARGETS: dict[str, Target] = {
    "gguf": gguf,
    "config": config,
    "tokenizer": tokenizer,
    "safetensors": safetensors,
    "template": template,
    "sse": sse,
    "stop": stop,
}
