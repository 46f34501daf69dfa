"""One run of `tokenloom bench` at a terminal: progress, tables, and the JSON document on the last line."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.bench.load import Run
from server.bench.measure import measure, run
from server.bench.options import Options
from server.bench.plot import HOW_TO_INSTALL, check_format, is_available, save_plot
from server.bench.record import Record
from server.bench.summary import Summary, summarise
from server.bench.table import summary_tables


@contextmanager
def user_errors() -> Iterator[None]:
    """What the caller can mend ends in one line and the exit status of a usage error."""
    try:
        yield
    except (ValueError, OSError, aiohttp.ClientError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def run_in_terminal(options: Options, save: Path | None, plot: Path | None) -> int:
    """The exit status: 0 when a request completed."""
    result = _run_with_progress(options)
    summary = summarise(result, options.limits)
    console = Console()
    for table in summary_tables(summary):
        console.print(table)
    for cause, detail in _first_details(result.records):
        console.print(f"[red]{cause}[/red], the first of them: ", end="")
        console.print(detail, markup=False)
    text = document(options, summary)
    typer.echo(text)
    if save is not None:
        save.write_text(text + "\n", encoding="utf-8")
    if plot is not None:
        save_plot(result.records, f"{options.url}: {summary.output_throughput:.0f} output tok/s", plot)
    return 0 if summary.completed else 1


def _run_with_progress(options: Options) -> Run:
    columns = (
        TextColumn("requests"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    num_failed = 0
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("requests", total=options.num_requests, failed="")

        def on_record(record: Record) -> None:
            nonlocal num_failed
            num_failed += bool(record.error)
            progress.update(task, advance=1, failed=f"[red]{num_failed} failed[/red]" if num_failed else "")

        return run(lambda: measure(options, on_record))


def document(options: Options, summary: Summary) -> str:
    """One line of JSON: what was asked, and what came of it."""
    asked = msgspec.to_builtins(options, enc_hook=str)
    asked.pop("headers")  # they may hold a key
    version = importlib.metadata.version("tokenloom")
    fields = {"tool": f"tokenloom bench {version}", "options": asked, "result": msgspec.to_builtins(summary)}
    return msgspec.json.encode(fields).decode()


def _first_details(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    first = {record.error: record.detail for record in reversed(records) if record.error}
    yield from first.items()


def check_output(save: Path | None, plot: Path | None) -> None:
    """Raises ValueError before the load for what would fail after it."""
    if plot is not None and not is_available():
        raise ValueError(HOW_TO_INSTALL)
    if plot is not None:
        check_format(plot)
    for path in (save, plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.resolve().parent}")
        if path is not None and path.is_dir():
            raise ValueError(f"{path} is a folder; accepted: a file's name")


def parse_headers(texts: Sequence[str]) -> dict[str, str]:
    """`Name: value` each. Raises ValueError."""
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"--header {text!r} is not accepted; accepted: NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


def parse_fields(text: str) -> dict[str, object]:
    """A JSON object. Raises ValueError."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise ValueError(f"--extra-body {text!r} is not a JSON object: {error}") from None
