"""The flags of `tokenloom serve`: one a field of the deployment, with the field's name and default."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli.settings import LOG_LEVELS, parse_bytes

_MODEL = "Model"
_HTTP = "HTTP"
_SPEED = "Memory and speed"
_QUEUE = "Queue"
_LIFE = "Life cycle"


def byte_count(value: str | int) -> int:
    """Click's parser of a byte count; the default arrives as the number it is."""
    if isinstance(value, int):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Model = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]",
        help="A folder (config.json, *.safetensors, tokenizer.json) or a .gguf file; without it the bundled "
        "SmolLM2-135M-Instruct. Example: tokenloom serve ~/models/Llama-3.2-1B",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="A TOML file with the tables \\[server] and \\[engine]; flags win over it. "
        "Example: --config configs/smollm2.toml",
    ),
]
LoadFormat = Annotated[
    Literal["auto", "dummy"],
    typer.Option(
        help="dummy: random weights for a folder that holds only config.json.", rich_help_panel=_MODEL
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="auto: an NVIDIA GPU where one can be used, else the CPU.", rich_help_panel=_MODEL),
]
Dtype = Annotated[
    Literal["auto", "bfloat16", "float16", "float32"],
    typer.Option(
        help="Of weights and KV cache; auto takes what the device is fast at. float16: GPU only; float32: CPU only.",
        rich_help_panel=_MODEL,
    ),
]
MaxModelLen = Annotated[
    int,
    typer.Option(
        help="Tokens of prompt and output together; 0: what the model was made for.",
        metavar="TOKENS",
        rich_help_panel=_MODEL,
    ),
]
ServedModelName = Annotated[
    str,
    typer.Option(
        help="The name clients ask for; empty: the model's own.", metavar="NAME", rich_help_panel=_MODEL
    ),
]
ChatTemplate = Annotated[
    str,
    typer.Option(
        help="A file with a jinja2 template; empty: the model's own.", metavar="FILE", rich_help_panel=_MODEL
    ),
]
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on; 0.0.0.0 is reachable from other machines.",
        metavar="ADDRESS",
        rich_help_panel=_HTTP,
    ),
]
Port = Annotated[
    int,
    typer.Option(
        help="0 takes a free one and the start-up line says which.", metavar="PORT", rich_help_panel=_HTTP
    ),
]
ApiWorkers = Annotated[
    int,
    typer.Option(
        help="Server processes that share the engine; more of them when many answers stream at once.",
        metavar="PROCESSES",
        rich_help_panel=_HTTP,
    ),
]
MaxBodyBytes = Annotated[
    int,
    typer.Option(
        parser=byte_count,
        help="A larger request body gets a 413. Example: 16MiB",
        metavar="BYTES",
        rich_help_panel=_HTTP,
    ),
]
RequestTimeout = Annotated[
    float,
    typer.Option(
        help="A request may take this long unless it says `timeout` itself; 0: no limit.",
        metavar="SECONDS",
        rich_help_panel=_HTTP,
    ),
]
PingSeconds = Annotated[
    float,
    typer.Option(
        help="A stream that waits gets a comment this often, so that proxies keep it open.",
        metavar="SECONDS",
        rich_help_panel=_HTTP,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        help="Of a step; 0: one a core this process may use.", metavar="THREADS", rich_help_panel=_SPEED
    ),
]
MaxRequests = Annotated[
    int,
    typer.Option(
        help="Requests that can be live at once; others wait. 0: 128 on a CPU, 256 on a GPU.",
        metavar="REQUESTS",
        rich_help_panel=_SPEED,
    ),
]
MaxBatchTokens = Annotated[
    int,
    typer.Option(
        help="Computed in one step, at most. 0: 256 on a CPU, up to 2048 on a GPU, fewer for a large model; an encoder has 512 and 8192.",
        metavar="TOKENS",
        rich_help_panel=_SPEED,
    ),
]
StepSeconds = Annotated[
    float,
    typer.Option(
        help="Long prompts are cut so that a step keeps the other requests waiting no longer; 0: never for that.",
        metavar="SECONDS",
        rich_help_panel=_SPEED,
    ),
]
BlockSize = Annotated[
    int,
    typer.Option(help="Tokens of keys and values in one block.", metavar="TOKENS", rich_help_panel=_SPEED),
]
KvTokens = Annotated[
    int,
    typer.Option(
        help="Held by the KV cache; 0: as many as fit in --kv-memory.",
        metavar="TOKENS",
        rich_help_panel=_SPEED,
    ),
]
KvMemory = Annotated[
    int,
    typer.Option(
        parser=byte_count,
        help="For the KV cache, unless --kv-tokens is given. Example: 4GiB. 0: 2 GiB on a CPU; on a GPU 4096 tokens "
        "a request, in at most 30 % of the memory that the weights leave.",
        metavar="BYTES",
        rich_help_panel=_SPEED,
    ),
]
GpuMemory = Annotated[
    int,
    typer.Option(
        parser=byte_count,
        help="Fill the GPU up to this much in all, the KV cache taking what is left. Example: 72GiB. 0: no more than "
        "the weights and --kv-memory need.",
        metavar="BYTES",
        rich_help_panel=_SPEED,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        help=(
            "A request's tokens do not depend on the requests beside it. On a GPU. Costs speed (matrix products of 128 tokens, prompts "
            "in pieces of 512, one a step), the prefix cache, and room: blocks for max_tokens are set aside when a request begins."
        ),
        rich_help_panel=_SPEED,
    ),
]
PrefixCache = Annotated[
    bool, typer.Option(help="Share the blocks of equal prefixes between requests.", rich_help_panel=_SPEED)
]
MaxLogprobs = Annotated[
    int,
    typer.Option(
        help="A request may ask for this many alternatives a token.", metavar="TOKENS", rich_help_panel=_SPEED
    ),
]
Policy = Annotated[
    Literal["fcfs", "priority"],
    typer.Option(
        help="fcfs: by arrival. priority: requests may carry one, lower is sooner.", rich_help_panel=_QUEUE
    ),
]
PrioritySeconds = Annotated[
    float,
    typer.Option(
        help="One level of priority outweighs this much waiting, so that none starves.",
        metavar="SECONDS",
        rich_help_panel=_QUEUE,
    ),
]
MaxQueuedRequests = Annotated[
    int,
    typer.Option(
        help="Over it a request gets a 429 that says when to come back.",
        metavar="REQUESTS",
        rich_help_panel=_QUEUE,
    ),
]
MaxQueuedTokens = Annotated[
    int,
    typer.Option(
        help="The same, by the tokens of waiting prompts.", metavar="TOKENS", rich_help_panel=_QUEUE
    ),
]
MaxQueueSeconds = Annotated[
    float,
    typer.Option(
        help="Who would wait longer for its turn, by what is measured, gets a 429 too; 0: not for that.",
        metavar="SECONDS",
        rich_help_panel=_QUEUE,
    ),
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        help="After SIGTERM running requests may take this long.", metavar="SECONDS", rich_help_panel=_LIFE
    ),
]
ProgressSeconds = Annotated[
    float,
    typer.Option(
        help="/health fails when work is pending and no step was done for this long. After ten times as long the engine is started again.",
        metavar="SECONDS",
        rich_help_panel=_LIFE,
    ),
]
LogLevel = Annotated[
    str, typer.Option(help="One of " + ", ".join(LOG_LEVELS) + ".", metavar="LEVEL", rich_help_panel=_LIFE)
]
LogFormat = Annotated[
    str, typer.Option(help="plain, or json: an object a line.", metavar="FORMAT", rich_help_panel=_LIFE)
]
AccessLog = Annotated[
    bool,
    typer.Option(
        help="Log a line a request: who, how long, how many tokens; never prompts or answers.",
        rich_help_panel=_LIFE,
    ),
]
OtlpEndpoint = Annotated[
    str,
    typer.Option(
        help="Send traces to this OpenTelemetry collector; needs tokenloom\\[tracing]. "
        "Example: http://127.0.0.1:4318",
        metavar="URL",
        rich_help_panel=_LIFE,
    ),
]
