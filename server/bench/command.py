"""`tokenloom bench`. The parts that compute are imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from server.bench.options import Endpoint, Options, PromptKind
from server.cli.base_url import base_url

_TARGET, _LOAD, _PROMPTS, _OUTPUT = "Target", "Load", "Prompts and answers", "Output"
_DEFAULT = Options()


def bench(
    url: Annotated[
        str, typer.Option(help="The server.", metavar="URL", rich_help_panel=_TARGET)
    ] = _DEFAULT.url,
    model: Annotated[
        str,
        typer.Option(help="Which of its models; empty: its first.", metavar="NAME", rich_help_panel=_TARGET),
    ] = _DEFAULT.model,
    endpoint: Annotated[
        Endpoint, typer.Option(help="/v1/completions or /v1/chat/completions.", rich_help_panel=_TARGET)
    ] = _DEFAULT.endpoint,
    header: Annotated[
        list[str] | None,
        typer.Option(
            help="Example: --header 'Authorization: Bearer KEY'",
            metavar="NAME:VALUE",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    extra_body: Annotated[
        str,
        typer.Option(
            help="JSON fields for every request. Example: '{\"top_p\": 0.9}'",
            metavar="JSON",
            rich_help_panel=_TARGET,
        ),
    ] = "{}",
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, help="One request may take this long.", metavar="SECONDS", rich_help_panel=_TARGET
        ),
    ] = _DEFAULT.timeout,
    new_connections: Annotated[
        bool,
        typer.Option(
            "--new-connections", help="Open a connection for each request.", rich_help_panel=_TARGET
        ),
    ] = _DEFAULT.new_connections,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests in flight, each followed by the next (default: 8); with --rate the most allowed.",
            metavar="REQUESTS",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Requests a second that arrive at random, whatever became of the others.",
            metavar="RATE",
            rich_help_panel=_LOAD,
        ),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option(
            min=1e-3,
            help="Shape of the gaps: 1 is a Poisson process, less comes in bursts.",
            metavar="SHAPE",
            rich_help_panel=_LOAD,
        ),
    ] = _DEFAULT.burstiness,
    num_requests: Annotated[
        int, typer.Option(min=1, help="Requests measured.", metavar="REQUESTS", rich_help_panel=_LOAD)
    ] = _DEFAULT.num_requests,
    num_warmups: Annotated[
        int,
        typer.Option(min=0, help="Requests before, not measured.", metavar="REQUESTS", rich_help_panel=_LOAD),
    ] = _DEFAULT.num_warmups,
    seed: Annotated[
        int, typer.Option(min=0, help="Of prompts and arrivals.", metavar="NUMBER", rich_help_panel=_LOAD)
    ] = _DEFAULT.seed,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='A file of {"prompt": "...", "max_tokens": 128} lines, instead of synthetic prompts.',
            metavar="FILE",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    prompt_kind: Annotated[
        PromptKind,
        typer.Option(
            help="text: common words of about a token each. ids: random token ids.", rich_help_panel=_PROMPTS
        ),
    ] = _DEFAULT.prompt_kind,
    prompt_tokens: Annotated[
        str,
        typer.Option(
            help="62, uniform:MIN:MAX, lognormal:MEDIAN:SIGMA or lognormal:MEDIAN:SIGMA:MAX.",
            metavar="LENGTHS",
            rich_help_panel=_PROMPTS,
        ),
    ] = _DEFAULT.prompt_tokens,
    shared_prefix: Annotated[
        int,
        typer.Option(
            min=0,
            help="Put before all prompts, the same for each.",
            metavar="TOKENS",
            rich_help_panel=_PROMPTS,
        ),
    ] = _DEFAULT.shared_prefix,
    max_tokens: Annotated[
        str,
        typer.Option(
            help="Of an answer; the same forms as --prompt-tokens.",
            metavar="LENGTHS",
            rich_help_panel=_PROMPTS,
        ),
    ] = _DEFAULT.max_tokens,
    ignore_eos: Annotated[
        bool | None,
        typer.Option(
            help="Answers run to --max-tokens (default: with synthetic prompts).", rich_help_panel=_PROMPTS
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            max=2,
            help="0 always takes the likeliest token.",
            metavar="NUMBER",
            rich_help_panel=_PROMPTS,
        ),
    ] = _DEFAULT.temperature,
    goodput: Annotated[
        list[str] | None,
        typer.Option(
            help="Count requests within these limits. Example: --goodput 'ttft:200 tpot:50' (also e2el)",
            metavar="NAME:MS",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the JSON there too.", metavar="FILE", rich_help_panel=_OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw latencies and the timeline. Example: load.png", metavar="FILE", rich_help_panel=_OUTPUT
        ),
    ] = None,
) -> None:
    """Measure a server that speaks OpenAI's API: throughput, latencies, goodput.

    A closed loop keeps --concurrency requests in flight; --rate sends by the clock instead. The last line
    printed is one JSON document. Example: [bold]tokenloom bench --concurrency 32 --goodput 'ttft:400'[/bold]
    """
    from server.bench import terminal
    from server.bench.summary import parse_limits

    with terminal.user_errors():
        terminal.check_output(save, plot)
        options = Options(
            url=base_url(url),
            model=model,
            endpoint=endpoint,
            num_requests=num_requests,
            num_warmups=num_warmups,
            concurrency=concurrency,
            rate=rate,
            burstiness=burstiness,
            prompts=prompts,
            prompt_kind=prompt_kind,
            prompt_tokens=prompt_tokens,
            shared_prefix=shared_prefix,
            max_tokens=max_tokens,
            ignore_eos=prompts is None if ignore_eos is None else ignore_eos,
            temperature=temperature,
            extra=terminal.parse_fields(extra_body),
            headers=terminal.parse_headers(header or []),
            timeout=timeout,
            new_connections=new_connections,
            seed=seed,
            limits=parse_limits(goodput or []),
        )
        raise typer.Exit(terminal.run_in_terminal(options, save, plot))
