"""What a model's makers recommend for requests that do not say how their tokens are picked."""

import json
from pathlib import Path

import pytest

from engine.checkpoint import CheckpointError, open_checkpoint
from engine.checkpoint.fields import Fields
from engine.checkpoint.generation import read_generation, read_gguf_generation
from engine.request import SamplingParams
from tests.engine.test_checkpoint import CONFIG

RECOMMENDED = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05}
SAMPLING = SamplingParams(temperature=0.6, top_k=20, top_p=0.95, min_p=0.05, repetition_penalty=1.05)


def test_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert open_checkpoint(str(tmp_path)).sampling == SamplingParams()
    generation = RECOMMENDED | {"do_sample": True, "max_new_tokens": 5, "eos_token_id": 7}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert open_checkpoint(str(tmp_path)).sampling == SAMPLING


def test_of_a_gguf_file() -> None:
    names = "temp", "top_k", "top_p", "min_p", "penalty_repeat"
    keys = [f"general.sampling.{name}" for name in names]
    assert read_gguf_generation(Fields("a", dict(zip(keys, RECOMMENDED.values(), strict=True)))) == SAMPLING
    assert open_checkpoint("").sampling == SamplingParams()


def test_what_turns_it_off() -> None:
    off = {"temperature": None, "top_k": -1, "top_p": 1, "min_p": 0, "repetition_penalty": 1}
    assert read_generation(Fields("a", off)) == SamplingParams()
    assert read_generation(Fields("a", {"temperature": 0})).temperature == 0.0


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("temperature", "hot", "a number from 0 to 2"),
        ("temperature", float("nan"), "a number from 0 to 2"),
        ("top_k", 2.5, "a whole number of at least 0"),
        ("top_p", 0.0, "a number from 1e-06 to 1"),
        ("min_p", True, "a number from 0 to 1"),
        ("repetition_penalty", -1, "a number from 1e-06 to 1e\\+06"),
    ],
)
def test_what_cannot_be_is_named(key: str, value: object, accepted: str) -> None:
    with pytest.raises(CheckpointError, match=f"the file: {key} is .*; accepted: {accepted}"):
        read_generation(Fields("the file", {key: value}))
