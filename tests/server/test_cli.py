"""The command line: what it teaches, what it passes on, what it refuses."""

import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from engine.config import EngineConfig
from engine.request import EngineInfo
from server.cli import main as cli
from server.cli.report import StartReport, format_bytes
from server.config import Config, ServerConfig
from server.process import supervisor

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.build_app(), list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.output


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What `serve` would have served, instead of serving it."""
    configs: list[Config] = []

    def serve(config: Config) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(supervisor, "serve", serve)
    return configs


def test_serve_without_arguments_serves_the_bundled_model(served: list[Config]) -> None:
    assert run("serve") == (0, "")
    assert served == [Config()]


def test_flags_reach_the_deployment(served: list[Config]) -> None:
    code, output = run(
        *("serve", "x.gguf", "--port", "0", "--kv-memory", "3GiB", "--no-prefix-cache", "--dtype", "float32"),
        *("--device", "cpu", "--gpu-memory", "72GiB", "--deterministic"),
    )
    assert code == 0, output
    engine = EngineConfig(
        model="x.gguf",
        kv_memory=3 << 30,
        prefix_cache=False,
        dtype="float32",
        device="cpu",
        gpu_memory=72 << 30,
        deterministic=True,
    )
    assert served == [Config(server=ServerConfig(port=0), engine=engine)]


def test_only_flags_that_were_given_win_over_the_file(served: list[Config], tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text("[server]\nport = 9\n[engine]\nthreads = 3\n")
    assert run("serve", "--config", str(path), "--port", "8000")[0] == 0
    assert (served[0].server.port, served[0].engine.threads) == (8000, 3)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["serve", "--max-requests", "-1"],
            "--max-requests: max_requests = -1 is not accepted; accepted: 0 to",
        ),
        (["serve", "--kv-memory", "much"], "'much' is not a number of bytes"),
        (["serve", "--dtype", "int8"], "'int8'"),
        (["serve", "--config", "gone.toml"], "gone.toml: cannot be read"),
        (["serve", "--prot", "80"], "--port"),
        (["bench", "--prompt-tokens", "few"], "'few' is not a length; accepted: 62"),
        (["bench", "--goodput", "speed:3"], "'speed:3' is not a limit; accepted: ttft:MS"),
        (["bench", "--header", "nonsense"], "NAME:VALUE"),
        (["bench", "--extra-body", "[1]"], "not a JSON object"),
        (["bench", "--save", "/no/such/folder/x.json"], "there is no folder"),
        (["bench", "--endpoint", "chat", "--prompt-kind", "ids"], "a chat has no token ids"),
    ],
)
def test_refusals_say_what_is_accepted(arguments: list[str], part: str) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert part in output


def test_every_field_is_a_flag_with_its_default() -> None:
    command = typer.main.get_command(cli.build_app())
    parameters = {p.name: p for p in command.commands["serve"].params}  # type: ignore[attr-defined]
    for config in (ServerConfig(), EngineConfig()):
        for field in fields(config):
            parameter = parameters[field.name]
            assert parameter.default == getattr(config, field.name), field.name
            assert parameter.help, field.name


def test_version() -> None:
    code, output = run("--version")
    assert code == 0
    assert re.fullmatch(r"tokenloom \d+\.\d+\.\d+\n", output)


def test_help_is_instant() -> None:
    """It imports nothing heavy. Processor time is bounded, not the clock's: the machine may be busy."""
    heavy = "('torch', 'numpy', 'fastapi', 'aiohttp', 'zmq')"
    code = f"import sys, server.cli; print([m for m in {heavy} if m in sys.modules])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.stdout == "[]\n"
    assert after.ru_utime - before.ru_utime < 0.6


def test_the_start_report_shows_phases_memory_and_a_request_to_try() -> None:
    info = EngineInfo(
        epoch=1,
        max_model_len=8192,
        max_requests=128,
        kv_tokens=4096,
        block_size=16,
        dtype="bfloat16",
        device="cpu",
        phases={"import": 1.25, "load weights": 2.5},
        memory={"KV cache": 3 << 30, "weights": 256 << 20},
    )
    console = Console(record=True, width=100)
    report = StartReport(console)
    report.engine_ready(info)
    report.listening("http://127.0.0.1:8000", "SmolLM2-135M-Instruct", 4.2)
    text = console.export_text()
    for part in (
        "load weights",
        "2.50 s",
        "3.0 GiB",
        "256 MiB",
        "3.2 GiB",
        "bfloat16 on cpu",
        "KV cache of 4096",
    ):
        assert part in text
    assert "SmolLM2-135M-Instruct is served on http://127.0.0.1:8000 after 4.2 s" in text
    assert "curl http://127.0.0.1:8000/v1/chat/completions -H" in text


def test_byte_sizes_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 200 << 20, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "200 MiB",
        "5.0 TiB",
    ]


def test_an_encoders_start_report() -> None:
    """The request to paste is one that it answers, and there is no cache to speak of."""
    info = EngineInfo(
        epoch=1,
        max_model_len=256,
        max_requests=128,
        kv_tokens=0,
        block_size=16,
        dtype="float32",
        device="cpu",
        phases={},
        memory={},
        task="embed",
    )
    console = Console(record=True, width=100)
    report = StartReport(console)
    report.engine_ready(info)
    report.listening("http://127.0.0.1:8000", "all-MiniLM-L6-v2", 4.2)
    text = console.export_text()
    assert "curl http://127.0.0.1:8000/v1/embeddings " in text
    assert "KV cache" not in text
