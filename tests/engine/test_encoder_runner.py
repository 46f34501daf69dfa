"""A real, small BERT in the runner: what is packed, what is built, and that a poisoned input fails alone."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoint import open_checkpoint
from engine.config import ConfigError, EngineConfig
from engine.encode_step import EncodeInput, EncodePlan, EncodeResult
from engine.kernels import build
from engine.process.load import LoadedEncoder, ModelRefused, load_model
from engine.runner.build_encoder import build_encoder_runner
from engine.runner.encoder import CpuEncoderRunner, pack_inputs
from engine.startup import StartupReport

POISON = 7  # a token whose embedding is not a number
VOCAB = 60
TOLERANCE = 2e-5


def save_bert(folder: Path, hidden_size: int, num_heads: int) -> Path:
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=num_heads,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    model = transformers.BertModel(config)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[POISON] = float("nan")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"), hidden_size=64, num_heads=2)


@pytest.fixture(scope="module")
def config(folder: Path) -> EngineConfig:
    return EngineConfig(model=str(folder), threads=1)


@pytest.fixture(scope="module")
def runner(config: EngineConfig) -> Iterator[CpuEncoderRunner]:
    made = make_runner(config)
    yield made
    made.close()


def make_runner(config: EngineConfig, report: StartupReport | None = None) -> CpuEncoderRunner:
    return build_encoder_runner(config, open_checkpoint(config.model), report or StartupReport())


def entry(*token_ids: int, type_ids: tuple[int, ...] = ()) -> EncodeInput:
    types = np.array(type_ids, np.int32) if type_ids else None
    return EncodeInput(np.array(token_ids, np.int32), types)


def encode(runner: CpuEncoderRunner, *inputs: EncodeInput, step: int = 1) -> EncodeResult:
    return runner.launch(EncodePlan(step, inputs)).result()


ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ids, st.booleans()), min_size=1, max_size=8))
def test_inputs_lie_back_to_back(texts: list[tuple[list[int], bool]]) -> None:
    inputs = tuple(
        entry(*text, type_ids=tuple(place % 2 for place in range(len(text))) if typed else ())
        for text, typed in texts
    )
    batch = pack_inputs(inputs)
    starts = batch.starts.tolist()
    assert batch.num_inputs == len(texts) and batch.num_tokens == starts[-1]
    assert batch.max_len == max(len(text) for text, _ in texts)
    for (text, typed), start, end in zip(texts, starts, starts[1:], strict=False):
        assert batch.token_ids[start:end].tolist() == text
        assert batch.positions[start:end].tolist() == list(range(len(text)))
        assert batch.type_ids[start:end].tolist() == [i % 2 if typed else 0 for i in range(len(text))]
    tensors = (batch.token_ids, batch.type_ids, batch.positions, batch.starts)
    assert {tensor.dtype for tensor in tensors} == {torch.int32}


def test_an_input_gets_the_same_answer_alone_and_in_company(runner: CpuEncoderRunner) -> None:
    inputs = (entry(1, 2, 3), entry(4), entry(*range(8, 50)), entry(5, 6, type_ids=(0, 1)))
    together = encode(runner, *inputs, step=9)
    assert (together.step, together.num_tokens, together.failed) == (9, 48, {})
    assert together.seconds > 0
    for place, one in enumerate(inputs):
        [alone] = encode(runner, one).outputs
        assert alone.shape == (64,) and alone.dtype == np.float32
        np.testing.assert_allclose(together.outputs[place], alone, rtol=0, atol=TOLERANCE)
    [untyped] = encode(runner, entry(5, 6)).outputs
    assert np.abs(untyped - together.outputs[3]).max() > 100 * TOLERANCE, "segments count"


def test_an_input_that_is_not_a_number_fails_alone(runner: CpuEncoderRunner) -> None:
    clean = (entry(1, 2, 3), entry(4, 5))
    result = encode(runner, clean[0], entry(9, POISON, 9), clean[1], entry(POISON))
    assert result.failed.keys() == {1, 3}
    assert "not finite" in result.failed[1]
    expected = encode(runner, *clean).outputs
    np.testing.assert_allclose(result.outputs[0], expected[0], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(result.outputs[2], expected[1], rtol=0, atol=TOLERANCE)


def test_what_was_settled_is_told(config: EngineConfig) -> None:
    report = StartupReport()
    loaded = load_model(config, report)
    assert isinstance(loaded, LoadedEncoder)
    assert (loaded.dtype, loaded.device, loaded.max_model_len) == ("float32", "cpu", 64)
    assert loaded.runner.task == "embed"
    assert report.phases.keys() >= {"open the model", "load kernels", "load weights"}
    num_weights = sum(p.numel() for p in transformers.BertModel.from_pretrained(config.model).parameters())
    assert report.memory.keys() == {"weights"}
    assert 0.5 * num_weights * 4 < report.memory["weights"] < 1.5 * num_weights * 4
    loaded.runner.close()


def test_bfloat16_and_a_shorter_context_may_be_asked_for(
    config: EngineConfig, runner: CpuEncoderRunner
) -> None:
    made = make_runner(replace(config, dtype="bfloat16", max_model_len=32))
    assert (made.dtype_name, made.max_model_len) == ("bfloat16", 32)
    [rough], [exact] = encode(made, entry(1, 2, 3)).outputs, encode(runner, entry(1, 2, 3)).outputs
    assert rough.dtype == np.float32
    cosine = rough @ exact / np.linalg.norm(rough) / np.linalg.norm(exact)
    assert 0.99 < cosine < 1 - 1e-7
    made.close()


def test_a_longer_context_than_the_model_has_is_refused(config: EngineConfig) -> None:
    with pytest.raises(ConfigError, match=r"max_model_len = 65 is not accepted; accepted: 0 .* to 64"):
        make_runner(replace(config, max_model_len=65))
    with pytest.raises(ModelRefused, match="max_model_len = 65"):
        load_model(replace(config, max_model_len=65), StartupReport())


def test_weights_that_are_missing_are_refused(config: EngineConfig, tmp_path: Path) -> None:
    settings = json.loads(Path(config.model, "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelRefused):
        load_model(replace(config, model=str(tmp_path)), StartupReport())
    dummy = make_runner(replace(config, model=str(tmp_path), load_format="dummy"))
    assert encode(dummy, entry(1, 2)).outputs[0].shape == (64,)
    dummy.close()


def test_without_a_compiler_the_plain_kernels_answer(
    config: EngineConfig,
    runner: CpuEncoderRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(cache_dir: Path | None = None) -> None:
        raise build.CompilerMissing("there is none")

    monkeypatch.setattr(build, "load", refuse)
    with caplog.at_level(logging.WARNING):
        plain = make_runner(config)
    assert "no compiled kernels" in caplog.text
    inputs = (entry(1, 2, 3), entry(*range(8, 30)))
    for ours, theirs in zip(encode(plain, *inputs).outputs, encode(runner, *inputs).outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    plain.close()


def test_a_shape_the_compiled_kernels_lack_runs_on_the_plain_ones(
    config: EngineConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = save_bert(tmp_path, hidden_size=48, num_heads=6)
    with caplog.at_level(logging.WARNING):
        made = make_runner(replace(config, model=str(odd)))
    assert "no compiled kernels for this model" in caplog.text
    assert encode(made, entry(1, 2)).outputs[0].shape == (48,)
    made.close()
