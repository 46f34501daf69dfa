"""What 0 and auto stand for on each device, and what a device refuses."""

import dataclasses
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import open_checkpoint
from engine.config import (
    DEFAULTS,
    ENCODER_DEFAULTS,
    PIECE_TOKENS,
    ConfigError,
    Device,
    EngineConfig,
    settle,
)
from engine.process.load import ModelRefused, load_model
from engine.runner.hardware import (
    find_gpu_fault,
    pick_device,
    pick_encoder_dtype,
    pick_gpu_dtype,
    pick_gpu_encoder_dtype,
)
from engine.startup import StartupReport
from tests.engine.encoder_files import BERT, open_files

RELATIVE = {"architectures": ["DebertaV2Model"], "model_type": "deberta-v2", "relative_attention": True}
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@pytest.mark.parametrize("encodes", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_zero_is_the_devices_own(device: Device, encodes: bool) -> None:
    settled = settle(EngineConfig(), device, encodes)
    defaults = (ENCODER_DEFAULTS if encodes else DEFAULTS)[device]
    assert settled == replace(
        EngineConfig(),
        device=device,
        max_requests=defaults.max_requests,
        max_batch_tokens=defaults.max_batch_tokens,
        kv_memory=defaults.kv_memory,
    )
    assert settle(settled, device, encodes) == settled


@pytest.mark.parametrize(
    ("billions", "max_requests", "expected"),
    [
        (0.135, 0, 2048),
        (1.24, 0, 2048),
        (3.2, 0, 1536),
        (8, 0, 640),
        (70, 0, 640),
        (8, 32, 512),
        (8, 1024, 2560),
        (1.24, 1024, 2560),
    ],
)
def test_a_step_of_a_larger_model_has_fewer_tokens_and_room_for_prompts(
    billions: float, max_requests: int, expected: int
) -> None:
    num_weights = int(billions * 1e9)
    settled = settle(EngineConfig(max_requests=max_requests), "cuda", num_weights=num_weights)
    assert settled.max_batch_tokens == expected
    assert settle(EngineConfig(), "cpu", num_weights=num_weights) == settle(EngineConfig(), "cpu")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("device", "gpu", "auto, cpu, cuda"),
        ("load_format", "pt", "auto, dummy"),
        ("kv_memory", "2GiB", "int"),
        ("block_size", True, "int"),
        ("prefix_cache", 1, "bool"),
    ],
)
def test_what_is_of_another_type_is_refused(name: str, value: Any, accepted: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value!r} is not accepted; accepted: {accepted}"):
        replace(EngineConfig(), **{name: value}).check()


@given(
    device=st.sampled_from(DEVICES),
    max_requests=st.integers(0, 4096),
    max_batch_tokens=st.integers(0, 1 << 16),
    kv_memory=st.integers(0, 1 << 40),
)
def test_what_is_given_stays(
    device: Device, max_requests: int, max_batch_tokens: int, kv_memory: int
) -> None:
    config = EngineConfig(max_requests=max_requests, max_batch_tokens=max_batch_tokens, kv_memory=kv_memory)
    try:
        config.check()
    except ConfigError:
        assert 0 < max_batch_tokens < max_requests
        return
    settled = settle(config, device)
    for field in fields(config):
        given_value = getattr(config, field.name)
        if given_value and field.name != "device":
            assert getattr(settled, field.name) == given_value
    assert 1 <= settled.max_requests <= settled.max_batch_tokens


@pytest.mark.parametrize(
    ("device", "config", "message"),
    [
        ("cpu", EngineConfig(dtype="float16"), "dtype = 'float16' .* auto, bfloat16 or float32 on a CPU"),
        ("cpu", EngineConfig(gpu_memory=1 << 30), "gpu_memory = 1073741824 .* 0 on a CPU"),
        ("cpu", EngineConfig(deterministic=True), "deterministic = True .* false on a CPU"),
        ("cuda", EngineConfig(dtype="float32"), "dtype = 'float32' .* auto, bfloat16 or float16 on a GPU"),
        ("cuda", EngineConfig(block_size=24), "block_size = 24 .* a multiple of 16"),
        ("cuda", EngineConfig(max_requests=5000), "max_requests = 5000 .* 0 to 4096 on a GPU"),
        ("cuda", EngineConfig(max_batch_tokens=70000), "max_batch_tokens = 70000 .* 0 to 65536 on a GPU"),
    ],
)
def test_what_a_device_does_not_do_is_refused(device: Device, config: EngineConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle(config, device)
    settle(config, "cpu" if device == "cuda" else "cuda")


def test_no_encoder_is_deterministic() -> None:
    settle(EngineConfig(deterministic=True), "cuda")
    with pytest.raises(ConfigError, match="deterministic = True .* false for an encoder"):
        settle(EngineConfig(deterministic=True), "cuda", encodes=True)


@given(
    max_requests=st.integers(0, 4096),
    max_batch_tokens=st.one_of(st.integers(0, 600), st.integers(0, 1 << 14)),
    prefix_cache=st.booleans(),
)
def test_deterministic_steps_have_room_for_a_piece_beside_all_rows(
    max_requests: int, max_batch_tokens: int, prefix_cache: bool
) -> None:
    config = EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_batch_tokens,
        prefix_cache=prefix_cache,
        deterministic=True,
    )
    if 0 < max_batch_tokens < max(max_requests, 1) + PIECE_TOKENS:
        with pytest.raises(ConfigError, match="max_batch_tokens"):
            settle(config, "cuda")
        return
    settled = settle(config, "cuda")
    assert not settled.prefix_cache
    assert settled.max_requests == (max_requests or min(256, (max_batch_tokens or 2048) - PIECE_TOKENS))
    assert settled.max_batch_tokens == (
        max_batch_tokens or max(2048, max_requests + PIECE_TOKENS, 5 * max_requests // 2)
    )
    assert 1 <= settled.max_requests <= settled.max_batch_tokens - PIECE_TOKENS
    assert settle(settled, "cuda") == settled


def test_a_batch_too_small_for_a_piece_is_refused_by_name() -> None:
    config = EngineConfig(max_requests=8, max_batch_tokens=519, deterministic=True)
    with pytest.raises(
        ConfigError, match="max_batch_tokens = 519 is not accepted; accepted: 520 and more where"
    ):
        config.check()
    replace(config, max_batch_tokens=520).check()
    replace(config, deterministic=False).check()


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    assert pick_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"device = 'cuda' is not accepted; accepted: cpu or auto: .*torch"):
        pick_device("cuda")
    with pytest.raises(ModelRefused, match="device = 'cuda'"):
        load_model(EngineConfig(device="cuda"), StartupReport())
    with pytest.raises(ModelRefused, match="dtype = 'float16'"):
        load_model(EngineConfig(device="cpu", dtype="float16"), StartupReport())


@pytest.mark.parametrize(
    ("capability", "missing", "reason"),
    [
        ((7, 5), "nothing", "Some GPU has compute capability 7.5; accepted: 8.0 and newer"),
        ((9, 0), "cupy", r"cupy cannot be imported \(not here\); tokenloom\[cuda12\] brings it"),
        ((9, 0), "cuda.bindings.nvrtc", r"cuda.bindings.nvrtc cannot be imported"),
        ((9, 0), "nothing", ""),
    ],
)
def test_a_gpu_is_used_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capability: tuple[int, int],
    missing: str,
    reason: str,
) -> None:
    def import_module(name: str) -> None:
        if name == missing:
            raise ImportError("not here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr("engine.runner.hardware.importlib.import_module", import_module)
    caplog.set_level(logging.INFO)
    if not reason:
        assert pick_device("auto") == pick_device("cuda") == "cuda"
        assert "device: cuda (Some GPU)" in caplog.messages
    else:
        assert pick_device("auto") == "cpu"
        assert [record for record in caplog.records if record.levelno == logging.WARNING]
        with pytest.raises(ConfigError, match=reason):
            pick_device("cuda")
    assert pick_device("auto", "its heads are odd") == pick_device("cpu", "its heads are odd") == "cpu"
    with pytest.raises(ConfigError, match="accepted: cpu or auto: its heads are odd"):
        pick_device("cuda", "its heads are odd")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, ""),
        ({"num_attention_heads": 8}, "heads have 16 channels; a GPU takes 32, 64, 96, 128"),
        ({"intermediate_size": 100}, "intermediate_size is 100; a GPU takes multiples of 8"),
        (RELATIVE, ""),
        (RELATIVE | {"num_attention_heads": 1}, "heads have 128 channels; a GPU takes 32, 64"),
        (RELATIVE | {"num_attention_heads": 1, "relative_attention": False}, ""),
    ],
)
def test_encoders_that_no_gpu_computes(options: dict[str, object], fault: str, tmp_path: Path) -> None:
    encoder = open_files(tmp_path, BERT | {"hidden_size": 128} | options).encoder
    found = find_gpu_fault(encoder)
    assert fault in found if fault else found == ""


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"head_dim": 80}, "heads have 80 channels; a GPU takes 64, 96, 128, 256"),
        ({"num_heads": 64, "num_kv_heads": 2}, "64 query heads share 2 KV heads; on a GPU at most 16"),
        ({"hidden_size": 580}, "hidden_size is 580; a GPU takes multiples of 8"),
    ],
)
def test_decoders_that_no_gpu_computes(changes: dict[str, Any], fault: str) -> None:
    found = find_gpu_fault(dataclasses.replace(open_checkpoint("").decoder, **changes))
    assert fault in found if fault else found == ""


def test_an_encoders_dtype() -> None:
    assert pick_encoder_dtype("auto") == pick_encoder_dtype("float32") == torch.float32
    assert pick_gpu_encoder_dtype("auto") == pick_gpu_encoder_dtype("float16") == torch.float16
    assert pick_encoder_dtype("bfloat16") == pick_gpu_encoder_dtype("bfloat16") == torch.bfloat16


def test_a_gpus_dtype() -> None:
    assert pick_gpu_dtype("auto") == pick_gpu_dtype("bfloat16") == torch.bfloat16
    assert pick_gpu_dtype("float16") == torch.float16
