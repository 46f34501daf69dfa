"""JSON and text files of a model's folder."""

import json
from pathlib import Path

from engine.checkpoint.error import CheckpointError
from engine.checkpoint.fields import Fields

_MAX_BYTES = 256 << 20  # the largest tokenizer.json has a tenth of it


def read_json(path: Path) -> Fields:
    """Errors: CheckpointError for a file that is missing, is not JSON, or is not an object."""
    values = read_value(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: accepted is an object, found {type(values).__name__}")
    return Fields(str(path), values)


def read_value(path: Path) -> object:
    """Errors: CheckpointError for a file that is missing or is not JSON."""
    content = _read(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error


def read_text(path: Path) -> str:
    """Errors: CheckpointError for a file that is missing or is not UTF-8."""
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error})") from error


def read_optional(path: Path) -> Fields:
    """Without keys where there is no such file."""
    return read_json(path) if path.exists() else Fields(str(path), {})


def _read(path: Path) -> bytes:
    """Not of what never ends: a device, a pipe."""
    if not path.exists():
        raise CheckpointError(f"{path} is missing")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; accepted: up to {_MAX_BYTES}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
