"""A TOML file and flags become a checked Config; a refusal names the setting, its origin and what fits."""

import difflib
import importlib.util
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar, get_origin, get_type_hints

import msgspec

from engine.config import ConfigError, EngineConfig, check_bounds, describe_type
from server.auth.key_file import KeyFileError, keys_of
from server.config import Config, ServerConfig
from server.logs import FORMATS
from server.process.certificate import load

TABLES: Mapping[str, type[ServerConfig] | type[EngineConfig]] = {
    "server": ServerConfig,
    "engine": EngineConfig,
}
BYTE_FIELDS = ("kv_memory", "gpu_memory", "max_body_bytes", "max_header_bytes")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
SERVER_BOUNDS: Mapping[str, tuple[float, float]] = {
    "port": (0, 65535),
    "api_workers": (1, 64),
    "max_body_bytes": (1024, 1 << 40),
    "request_timeout": (0, 1e9),
    "ping_seconds": (0.1, 1e9),
    "drain_seconds": (0, 1e9),
    "progress_seconds": (1, 1e9),
    "max_connections": (1, 1 << 20),
    "max_header_bytes": (1024, 1 << 24),
    "max_headers": (8, 10_000),
    "header_seconds": (0.1, 3600),
    "body_seconds": (0.1, 3600),
    "stall_seconds": (0.1, 3600),
}
_BYTE_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

T = TypeVar("T", ServerConfig, EngineConfig)


class SettingsError(ValueError):
    """A deployment that cannot be; the message is for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it was written, for messages."""

    value: object
    origin: str


def load_config(path: Path | None, flags: Mapping[str, object]) -> Config:
    """The deployment in the TOML file `path`, with `flags` (by field name) over it. Raises SettingsError."""
    settings = {} if path is None else read_toml(path)
    settings |= {name: Setting(value, flag_name(name)) for name, value in flags.items()}
    config = Config(server=_build(ServerConfig, settings), engine=_build(EngineConfig, settings))
    try:
        config.engine.check()
        check_server(config.server)
    except ConfigError as error:
        where = settings[error.name].origin if error.name in settings else error.name
        raise SettingsError(f"{where}: {error}") from None
    return config


def check_server(config: ServerConfig) -> None:
    """Raise ConfigError for the first value that is out of bounds."""
    check_bounds(config, SERVER_BOUNDS)
    if config.log_level not in LOG_LEVELS:
        raise ConfigError("log_level", config.log_level, ", ".join(LOG_LEVELS))
    if config.log_format not in FORMATS:
        raise ConfigError("log_format", config.log_format, ", ".join(FORMATS))
    check_tracing(config.otlp_endpoint)
    check_tls(config.tls_cert, config.tls_key)
    try:
        keys_of(config)
    except KeyFileError as error:
        raise SettingsError(str(error)) from None
    if config.chat_template and not Path(config.chat_template).is_file():
        raise ConfigError("chat_template", config.chat_template, "a file that holds a jinja2 template")


def check_tls(cert: str, key: str) -> None:
    """Raise ConfigError for files that a TLS server cannot use."""
    if bool(cert) != bool(key):
        missing = "tls_key" if cert else "tls_cert"
        raise ConfigError(missing, "", "a PEM file: tls_cert and tls_key go together")
    if not cert:
        return
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
    except (OSError, ssl.SSLError) as error:
        accepted = "a PEM file with a certificate, and tls_key with its key, not encrypted"
        raise ConfigError("tls_cert", cert, f"{accepted} ({error.strerror or error})") from error


def check_tracing(endpoint: str) -> None:
    """Raise ConfigError for what is no URL, and where OpenTelemetry is not installed."""
    if not endpoint:
        return
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
        raise ConfigError("otlp_endpoint", endpoint, "a URL like http://127.0.0.1:4318")
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        if not is_installed(package):
            raise ConfigError("otlp_endpoint", endpoint, "nothing, unless tokenloom[tracing] is installed")


def is_installed(package: str) -> bool:
    """Whether it, and the packages it lies in, are there; nothing is imported but those."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def read_toml(path: Path) -> dict[str, Setting]:
    """Settings by field name. Raises SettingsError for an unreadable file, unknown tables and keys."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    settings: dict[str, Setting] = {}
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise SettingsError(
                f"{path}: {table} stands outside of a table; put it under [server] or [engine]"
            )
        settings |= _read_table(path, table, values)
    return settings


def _read_table(path: Path, table: str, values: Mapping[str, object]) -> dict[str, Setting]:
    if table not in TABLES:
        raise SettingsError(f"{path}: unknown table [{table}]; accepted: [server], [engine]")
    accepted = field_names(TABLES[table])
    for key in values:
        if key not in accepted:
            raise SettingsError(f"{path}: unknown key {key} in [{table}]{_hint(key, table)}")
    return {key: Setting(value, f"{path}, [{table}] {key}") for key, value in values.items()}


def _hint(key: str, table: str) -> str:
    accepted = field_names(TABLES[table])
    for other, config in TABLES.items():
        if key in field_names(config):
            return f"; it belongs in [{other}]"
    close = difflib.get_close_matches(key, accepted, n=1)
    return (f", did you mean {close[0]}?" if close else "") + f" (accepted: {', '.join(accepted)})"


def _build(config: type[T], settings: Mapping[str, Setting]) -> T:
    types = get_type_hints(config)
    names = [name for name in field_names(config) if name in settings]
    return msgspec.convert({name: _convert(settings[name], name, types[name]) for name in names}, config)


def _convert(setting: Setting, name: str, accepted: type) -> object:
    """The value in its field's type. Nothing is guessed; byte counts may have a unit, floats may be whole."""
    try:
        if name in BYTE_FIELDS and isinstance(setting.value, str):
            return parse_bytes(setting.value)
        return msgspec.convert(setting.value, accepted)
    except (msgspec.ValidationError, ValueError) as error:
        message = str(error)
        if get_origin(accepted) is Literal:
            message = f"accepted: {describe_type(accepted)}"
        raise SettingsError(
            f"{setting.origin} = {setting.value!r}: {message[:1].lower()}{message[1:]}"
        ) from None


def parse_bytes(text: str) -> int:
    """A byte count: 512MiB, 2GiB or 2G (binary units), 1048576. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes; accepted: 1048576, 512MiB, 2GiB")
    return int(float(match[1]) * (1 << _BYTE_UNITS[match[2]]))


def flag_name(field: str) -> str:
    """How the command line spells a field."""
    return "MODEL" if field == "model" else "--" + field.replace("_", "-")


def field_names(config: type[ServerConfig] | type[EngineConfig]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(config))
