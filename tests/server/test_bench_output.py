"""What `tokenloom bench` leaves behind: a document, a picture."""

import json
from pathlib import Path

import pytest

from server.bench import terminal
from server.bench.load import Run
from server.bench.options import Options
from server.bench.plot import save_plot
from server.bench.summary import summarise
from tests.server.test_bench import record


def test_plot_is_an_image(tmp_path: Path) -> None:
    records = [record(0.0, [0.1, 0.2, 0.4], 3), record(0.5, [0.9], 1), record(0.0, [], 0, error="503")]
    save_plot(records, "a load", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    save_plot([], "nothing completed", tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_plot_without_matplotlib_is_refused_before_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"tokenloom\[plot\]"):
        terminal.check_output(None, Path("p.png"))


def test_what_could_not_be_written_is_refused_before_the_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"load\.xyz: accepted is a name that ends in one of .*png"):
        terminal.check_output(None, tmp_path / "load.xyz")
    with pytest.raises(ValueError, match="is a folder; accepted: a file's name"):
        terminal.check_output(tmp_path, None)


def test_the_document_is_one_line_without_secrets() -> None:
    options = Options(headers={"Authorization": "Bearer secret"}, prompts=Path("p.jsonl"))
    line = terminal.document(options, summarise(Run([record(0.0, [0.1, 0.2], 4)], 1.0), {}))
    assert "\n" not in line
    assert "secret" not in line
    document = json.loads(line)
    assert document["options"]["prompts"] == "p.jsonl"
    assert document["result"]["output_throughput"] == 4.0
    assert document["result"]["ttft_ms"]["median"] == 100.0
