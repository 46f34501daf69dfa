"""The command line. What is heavy is imported inside the command that needs it, so that --help is instant."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engine.config import EngineConfig
from server.bench.command import bench
from server.cli import access_flags, flags
from server.cli.key import key_commands
from server.config import ServerConfig

_ENGINE = EngineConfig()
_SERVER = ServerConfig()


def main() -> None:
    """The console script `tokenloom`."""
    build_app()(prog_name="tokenloom")


def build_app() -> typer.Typer:
    app = typer.Typer(
        help="Serve language models: every live request gets its next token in one step.",
        epilog="Start: [bold]tokenloom serve[/bold], then [bold]tokenloom chat[/bold] in another terminal.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    app.command()(serve)
    app.command()(chat)
    app.command()(bench)
    app.add_typer(key_commands(), name="key")
    app.command()(dashboards)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"tokenloom {importlib.metadata.version('tokenloom')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def serve(
    context: typer.Context,
    model: flags.Model = _ENGINE.model,
    config: flags.ConfigFile = None,
    load_format: flags.LoadFormat = _ENGINE.load_format,
    device: flags.Device = _ENGINE.device,
    dtype: flags.Dtype = _ENGINE.dtype,
    max_model_len: flags.MaxModelLen = _ENGINE.max_model_len,
    served_model_name: flags.ServedModelName = _SERVER.served_model_name,
    chat_template: flags.ChatTemplate = _SERVER.chat_template,
    host: flags.Host = _SERVER.host,
    port: flags.Port = _SERVER.port,
    api_workers: flags.ApiWorkers = _SERVER.api_workers,
    max_body_bytes: flags.MaxBodyBytes = _SERVER.max_body_bytes,
    request_timeout: flags.RequestTimeout = _SERVER.request_timeout,
    ping_seconds: flags.PingSeconds = _SERVER.ping_seconds,
    threads: flags.Threads = _ENGINE.threads,
    max_requests: flags.MaxRequests = _ENGINE.max_requests,
    max_batch_tokens: flags.MaxBatchTokens = _ENGINE.max_batch_tokens,
    step_seconds: flags.StepSeconds = _ENGINE.step_seconds,
    block_size: flags.BlockSize = _ENGINE.block_size,
    kv_tokens: flags.KvTokens = _ENGINE.kv_tokens,
    kv_memory: flags.KvMemory = _ENGINE.kv_memory,
    gpu_memory: flags.GpuMemory = _ENGINE.gpu_memory,
    prefix_cache: flags.PrefixCache = _ENGINE.prefix_cache,
    max_logprobs: flags.MaxLogprobs = _ENGINE.max_logprobs,
    deterministic: flags.Deterministic = _ENGINE.deterministic,
    policy: flags.Policy = _ENGINE.policy,
    priority_seconds: flags.PrioritySeconds = _ENGINE.priority_seconds,
    max_queued_requests: flags.MaxQueuedRequests = _ENGINE.max_queued_requests,
    max_queued_tokens: flags.MaxQueuedTokens = _ENGINE.max_queued_tokens,
    max_queue_seconds: flags.MaxQueueSeconds = _ENGINE.max_queue_seconds,
    drain_seconds: flags.DrainSeconds = _SERVER.drain_seconds,
    progress_seconds: flags.ProgressSeconds = _SERVER.progress_seconds,
    log_level: flags.LogLevel = _SERVER.log_level,
    api_key: access_flags.ApiKey = _SERVER.api_key,
    key_file: access_flags.KeyFile = _SERVER.key_file,
    admin_key: access_flags.AdminKey = _SERVER.admin_key,
    tls_cert: access_flags.TlsCert = _SERVER.tls_cert,
    tls_key: access_flags.TlsKey = _SERVER.tls_key,
    cors_origin: access_flags.CorsOrigin = _SERVER.cors_origin,
    allowed_hosts: access_flags.AllowedHosts = _SERVER.allowed_hosts,
    max_connections: access_flags.MaxConnections = _SERVER.max_connections,
    max_header_bytes: access_flags.MaxHeaderBytes = _SERVER.max_header_bytes,
    max_headers: access_flags.MaxHeaders = _SERVER.max_headers,
    header_seconds: access_flags.HeaderSeconds = _SERVER.header_seconds,
    body_seconds: access_flags.BodySeconds = _SERVER.body_seconds,
    stall_seconds: access_flags.StallSeconds = _SERVER.stall_seconds,
    log_format: flags.LogFormat = _SERVER.log_format,
    access_log: flags.AccessLog = _SERVER.access_log,
    otlp_endpoint: flags.OtlpEndpoint = _SERVER.otlp_endpoint,
) -> None:
    """Serve a model over HTTP, in OpenAI's API.

    Without a model the bundled SmolLM2-135M-Instruct is served. Once it is up, a request to try is printed.
    """
    from server.cli.settings import SettingsError, load_config

    try:
        deployment = load_config(config, given_flags(context))
    except SettingsError as error:
        refuse(str(error))
    for name in (access_flags.API_KEY, access_flags.ADMIN_KEY):
        os.environ.pop(name, None)  # no child inherits it
    from server.process import supervisor

    raise typer.Exit(supervisor.serve(deployment))


def given_flags(context: typer.Context) -> dict[str, object]:
    """What stood on the command line itself, or for keys in the environment, by field name: that wins over the file."""
    given = {name: value for name, value in context.params.items() if name != "config"}
    return {name: value for name, value in given.items() if _is_given(context, name)}


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def refuse(message: str) -> NoReturn:
    """End with the exit status of a usage error."""
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)


def chat(
    url: Annotated[str, typer.Option(help="The server to talk to.", metavar="URL")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="Which of its models; empty: its first.", metavar="NAME")] = "",
    system: Annotated[str, typer.Option(help="A system prompt to begin with.", metavar="TEXT")] = "",
    temperature: Annotated[
        float, typer.Option(help="0 always takes the likeliest token.", min=0, max=2)
    ] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Of one answer.", min=1, metavar="TOKENS")] = 1024,
    api_key: Annotated[
        str, typer.Option(help="If the server asks for one.", metavar="KEY", envvar=access_flags.API_KEY)
    ] = "",
) -> None:
    """Talk to a running server. Also /system TEXT, /reset, /exit; Ctrl-C stops an answer.

    Works in a pipe: [bold]echo 'What is 2 + 2?' | tokenloom chat[/bold]
    """
    from server.cli.base_url import base_url
    from server.cli.chat import Settings, chat_in_terminal

    settings = Settings(
        url=base_url(url),
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        api_key=api_key,
    )
    raise typer.Exit(chat_in_terminal(settings))


def dashboards(
    folder: Annotated[
        Path, typer.Argument(help="Where grafana/ and prometheus/ are, or will be.", metavar="FOLDER")
    ],
    first_token_seconds: Annotated[
        float, typer.Option(help="What p99 of the time to the first token may be.", min=0, metavar="SECONDS")
    ] = 2.0,
    between_tokens_seconds: Annotated[
        float, typer.Option(help="What p99 of the time between tokens may be.", min=0, metavar="SECONDS")
    ] = 0.3,
    answer_seconds: Annotated[
        float, typer.Option(help="What p99 of an encoder's answer may be.", min=0, metavar="SECONDS")
    ] = 2.0,
    error_ratio: Annotated[
        float, typer.Option(help="Part of the responses that may be errors.", min=0, max=1)
    ] = 0.05,
) -> None:
    """Write Grafana's dashboards and Prometheus's alert rules, for the given objectives."""
    from server.metrics.dashboards.alerts import Objectives
    from server.metrics.dashboards.files import write_files

    objectives = Objectives(first_token_seconds, between_tokens_seconds, answer_seconds, error_ratio)
    for path in write_files(folder, objectives):
        typer.echo(path)
