"""One deployment: a TOML file with a table for the server and one for the engine, every key a field here."""

from dataclasses import dataclass, field

from engine.config import EngineConfig


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: the system picks a free one, and the start-up line says which
    served_model_name: str = ""  # "": the model's own name
    api_workers: int = 1  # server processes that share the engine
    chat_template: str = ""  # a file with a jinja2 template; "": the model's own
    max_body_bytes: int = 8 << 20
    request_timeout: float = 0.0  # seconds a request may take unless it says `timeout` itself; 0: no limit
    ping_seconds: float = 10.0  # a waiting stream gets a comment this often
    drain_seconds: float = 30.0  # after SIGTERM running requests may take this long
    # /health fails when work is pending and no step was done for this long; after ten times as long the engine is started again
    progress_seconds: float = 30.0
    log_level: str = "info"
    api_key: str = field(default="", repr=False)  # the one key, if there is one; more in key_file
    key_file: str = ""  # TOML with an entry [[key]] each; without any key all may use it
    admin_key: str = field(default="", repr=False)  # for /admin/*; an entry of key_file may say admin, too
    tls_cert: str = ""  # a PEM file with the certificate and those above it; "": plain HTTP
    tls_key: str = ""  # a PEM file with its key, not encrypted
    cors_origin: str = ""  # pages from these origins may call, separated by commas; "*": from all; "": none
    allowed_hosts: str = ""  # without keys: names, separated by commas, that it may be called by beside addresses and localhost
    max_connections: int = 16384  # of one server process; more get a 503
    max_header_bytes: int = 65536  # of a request's line and headers; more get a 431
    max_headers: int = 100
    header_seconds: float = 10.0  # a request's head, or a TLS handshake, may take this long
    body_seconds: float = 60.0  # and its body this long
    stall_seconds: float = 30.0  # a client that does not read its answer for so long is dropped
    log_format: str = "plain"  # json: an object a line
    access_log: bool = True  # a line a request, without what was asked and answered
    otlp_endpoint: str = ""  # a collector's base URL, which gets traces; "": none are made


@dataclass(frozen=True, slots=True)
class Config:
    """A whole deployment."""

    server: ServerConfig = field(default_factory=ServerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
