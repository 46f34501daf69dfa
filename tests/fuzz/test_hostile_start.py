"""A model that lies, given to the command that an operator types: one line says what is wrong, within bounds on time and memory."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz.raw_folder import CONFIG, TOKENIZER, put
from tests.fuzz.raw_gguf import EMBEDDING, RawGguf, RawTensor
from tests.fuzz.test_config_hostile import CONFIGS
from tests.fuzz.test_gguf_hostile import REFUSED
from tests.fuzz.test_tokenizer_hostile import TOKENIZERS

ROOT = Path(__file__).parents[2]
GIB = 1 << 30

OPEN = """
import sys
from engine.checkpoint import CheckpointError, open_checkpoint
from server.text.errors import ModelTextError
from server.text.load import load_template, load_tokenizer
for path in sys.argv[1:]:
    try:
        checkpoint = open_checkpoint(path)
        load_template(checkpoint, load_tokenizer(checkpoint))
    except (CheckpointError, ModelTextError) as error:
        print(path in str(error) or "tokenizer: " in str(error) or str(error))
    else:
        print("taken")
"""


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))


def test_none_of_them_needs_a_gibibyte(tmp_path: Path) -> None:
    """All that are refused, one after the other in one process that may have no more."""
    paths = []
    for place, (raw, _) in enumerate(REFUSED.values()):
        path = tmp_path / f"{place}.gguf"
        path.write_bytes(raw.content())
        paths.append(path)
    folders = [(config, TOKENIZER) for config, _ in CONFIGS.values()]
    folders += [(CONFIG, tokenizer) for tokenizer, _ in TOKENIZERS.values()]
    for place, (config, tokenizer) in enumerate(folders):
        folder = tmp_path / f"folder-{place}"
        folder.mkdir()
        paths.append(put(folder, config, tokenizer))
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, paths)],
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        preexec_fn=limit_memory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n") == ["True"] * len(paths) + [""]


def overlapping(folder: Path) -> Path:
    second = RawTensor(b"output_norm.weight", (8,), offset=96)
    path = folder / "overlapping.gguf"
    path.write_bytes(replace(RawGguf(), tensors=(EMBEDDING, second)).content())
    return path


def panicking(folder: Path) -> Path:
    return put(folder, tokenizer=TOKENIZERS["a token of no name"][0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (overlapping, "the tensors token_embd.weight and output_norm.weight overlap at byte"),
        (panicking, "tokenizer.json: not a tokenizer the tokenizers library can use"),
    ],
)
def test_the_command_says_it_in_a_line(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    command = [sys.executable, "-m", "server", "serve", str(path), "--port", "0", "--threads", "1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said
    assert "Traceback" not in said and "Error:" not in said, said
    assert any(str(path) in line and message in line for line in said.replace("\n  ", " ").splitlines()), said


def test_a_configuration_of_the_examples_is_read(tmp_path: Path) -> None:
    """That the refusals are for what was changed."""
    folder = put(tmp_path)
    done = subprocess.run([sys.executable, "-c", OPEN, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "taken\n" and json.loads((folder / "config.json").read_text()) == CONFIG
