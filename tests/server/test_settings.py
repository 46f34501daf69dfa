"""A deployment from a file and flags: what wins, what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from engine.config import DEFAULTS, ENGINE_BOUNDS, EngineConfig, settle
from server.cli.settings import SERVER_BOUNDS, SettingsError, field_names, load_config, parse_bytes
from server.config import Config

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "deployment.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_default() -> None:
    assert load_config(None, {}) == Config()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[server]\nport = 9000\nhost = "::1"\n[engine]\nmax_requests = 7\n')
    config = load_config(path, {"port": 9001})
    assert (config.server.port, config.server.host, config.engine.max_requests) == (9001, "::1", 7)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_files_load(path: Path) -> None:
    for device in DEFAULTS:
        settled = settle(load_config(path, {}).engine, device)
        assert settled.max_batch_tokens >= settled.max_requests >= 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "[engine]\nmax_request = 3\n",
            ["max_request", "[engine]", "did you mean max_requests?", "block_size"],
        ),
        ("[engine]\nport = 3\n", ["port", "belongs in [server]"]),
        ("[motor]\nport = 3\n", ["[motor]", "[server], [engine]"]),
        ("port = 3\n", ["port", "outside of a table"]),
        ('[server]\nport = "eighty"\n', ["[server] port", "'eighty'", "expected `int`, got `str`"]),
        ("[engine]\nprefix_cache = 1\n", ["[engine] prefix_cache", "expected `bool`"]),
        (
            '[engine]\ndtype = "float8"\n',
            ["[engine] dtype", "'float8'", "accepted: auto, bfloat16, float16, float32"],
        ),
        ('[engine]\ndevice = "tpu"\n', ["[engine] device", "'tpu'"]),
        ("[server]\nport = 70000\n", ["[server] port", "70000", "0 to 65535"]),
        (
            "[engine]\nmax_requests = 600\nmax_batch_tokens = 512\n",
            ["[engine] max_requests", "max_requests = 600", "max_batch_tokens (512)"],
        ),
        ('[engine]\nkv_memory = "lots"\n', ["[engine] kv_memory", "'lots'", "512MiB"]),
        ('[server]\nlog_level = "loud"\n', ["log_level", "loud", "critical, error, warning"]),
        ('[server]\nchat_template = "/no/such"\n', ["chat_template", "/no/such", "jinja2"]),
        ("[server\n", ["not TOML", "line 1"]),
    ],
)
def test_refusals_name_file_key_and_what_is_accepted(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_config(path, {})
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_a_refused_flag_is_named_as_a_flag() -> None:
    with pytest.raises(
        SettingsError, match=r"--max-requests: max_requests = -1 is not accepted; accepted: 0 to"
    ):
        load_config(None, {"max_requests": -1})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml: cannot be read: No such file"):
        load_config(tmp_path / "gone.toml", {})


def test_infinite_and_nan_are_out_of_bounds(tmp_path: Path) -> None:
    for value in ("nan", "inf", "-1.0"):
        with pytest.raises(SettingsError, match="drain_seconds"):
            load_config(write(tmp_path, f"[server]\ndrain_seconds = {value}\n"), {})


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("1.5g", 3 << 29), ("4kb", 4096)],
)
def test_byte_counts(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_every_number_has_bounds() -> None:
    """A new field must say what it accepts; Literals, strings and booleans say it by their type."""
    config = Config()
    for table, bounds in ((config.engine, ENGINE_BOUNDS), (config.server, SERVER_BOUNDS)):
        for name in field_names(type(table)):
            value = getattr(table, name)
            assert (name in bounds) == (isinstance(value, int | float) and not isinstance(value, bool)), name


def test_field_names_are_of_one_table_only() -> None:
    server, engine = field_names(type(Config().server)), field_names(EngineConfig)
    assert not set(server) & set(engine)
