"""What 0 and auto stand for on each device, and what a device refuses."""

import logging
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import DEFAULTS, ConfigError, Device, EngineConfig, settle
from engine.process.process import ModelRefused, load_model
from engine.runner.hardware import pick_device, pick_gpu_dtype
from engine.startup import StartupReport

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@pytest.mark.parametrize("device", DEVICES)
def test_zero_is_the_devices_own(device: Device) -> None:
    settled = settle(EngineConfig(), device)
    defaults = DEFAULTS[device]
    assert settled == replace(
        EngineConfig(),
        device=device,
        max_requests=defaults.max_requests,
        max_batch_tokens=defaults.max_batch_tokens,
        kv_memory=defaults.kv_memory,
    )
    assert settle(settled, device) == settled


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


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", "generate") == "cpu"
    assert pick_device("cpu", "generate") == "cpu"
    with pytest.raises(ConfigError, match=r"device = 'cuda' is not accepted; accepted: cpu or auto: .*torch"):
        pick_device("cuda", "generate")
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
        assert pick_device("auto", "generate") == pick_device("cuda", "generate") == "cuda"
        assert "device: cuda (Some GPU)" in caplog.messages
    else:
        assert pick_device("auto", "generate") == "cpu"
        assert [record for record in caplog.records if record.levelno == logging.WARNING]
        with pytest.raises(ConfigError, match=reason):
            pick_device("cuda", "generate")
    assert pick_device("auto", "embed") == "cpu"
    with pytest.raises(ConfigError, match="encoders compute on the CPU"):
        pick_device("cuda", "embed")


def test_a_gpus_dtype() -> None:
    assert pick_gpu_dtype("auto") == pick_gpu_dtype("bfloat16") == torch.bfloat16
    assert pick_gpu_dtype("float16") == torch.float16
