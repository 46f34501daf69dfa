"""The shipped dashboards and alert rules are what the code makes, and name only what the code declares."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from typer.testing import CliRunner

from engine.metrics import catalogue as engine
from engine.metrics.metric import LABELS, Metric, metrics_in
from server.cli.main import build_app
from server.metrics import catalogue as server
from server.metrics.dashboards.alerts import Objectives, rules
from server.metrics.dashboards.files import DASHBOARDS, monitoring_files
from server.metrics.dashboards.panel import NUM_COLUMNS
from server.metrics.dashboards.parts import SCOPE
from tests.prometheus import program

CONFIGS = Path(__file__).parents[2] / "configs"
GUIDE = (CONFIGS.parent / "docs/monitoring.md").read_text(encoding="utf-8")
METRICS = metrics_in(vars(engine)) + metrics_in(vars(server))
Json = dict[str, Any]


def boards() -> list[Json]:
    return [json.loads((CONFIGS / f"grafana/dashboards/{name}.json").read_text()) for name in DASHBOARDS]


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_shipped_files_are_what_the_code_makes() -> None:
    for name, content in monitoring_files(Objectives()).items():
        shipped = (CONFIGS / name).read_text(encoding="utf-8")
        assert shipped == content, f"run: tokenloom dashboards configs (configs/{name} is old)"
    shipped_boards = {path.stem for path in (CONFIGS / "grafana/dashboards").iterdir()}
    assert shipped_boards == set(DASHBOARDS)


def test_metrics_have_names_of_their_own() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names) > 30
    assert all(metric.text.endswith(".") and not set(metric.labels) & set(LABELS) for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_on_a_dashboard(metric: Metric) -> None:
    queries = [t["expr"] for board in boards() for panel in panels(board) for t in panel["targets"]]
    assert any(re.search(rf"{metric.exposed}(_bucket|_sum|_count)?\b", query) for query in queries)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_explained(metric: Metric) -> None:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    assert f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.text} |" in GUIDE


def test_every_alert_is_explained() -> None:
    alerts = rules(Objectives())["groups"][0]["rules"]
    assert re.findall(r"^\| `(Tokenloom\w+)`", GUIDE, re.MULTILINE) == [alert["alert"] for alert in alerts]


PROMISED = [
    *[
        ("serving", "heatmap", metric, ())
        for metric in (server.FIRST_TOKEN, server.BETWEEN_TOKENS, server.WHOLE)
    ],
    ("serving", "timeseries", server.GENERATION_TOKENS, ()),
    ("serving", "timeseries", server.PROMPT_TOKENS, ()),
    ("serving", "timeseries", engine.WAITING, ()),
    ("serving", "timeseries", server.QUEUE, ()),
    ("serving", "timeseries", engine.STEP_ROWS, ()),
    ("serving", "timeseries", server.REJECTIONS, ("cause",)),
    ("serving", "timeseries", server.CANCELLATIONS, ("cause",)),
    ("serving", "timeseries", server.RESPONSES, ("status",)),
    ("engine", "heatmap", engine.STEP_SECONDS, ()),
    ("engine", "timeseries", engine.STEP_SECONDS, ()),
    ("engine", "timeseries", engine.HOST_GAP, ()),
    ("engine", "timeseries", engine.KV_USAGE, ()),
    ("engine", "timeseries", engine.PREFIX_HITS, ()),
    ("engine", "timeseries", engine.PREEMPTIONS, ()),
    ("engine", "timeseries", engine.MOVES, ()),
    ("engine", "timeseries", engine.LAUNCHES, ("launch",)),
    ("engine", "timeseries", engine.MEMORY, ("process",)),
    ("engine", "timeseries", server.RESTARTS, ()),
    ("engine", "bargauge", engine.STARTUP, ("phase",)),
    ("encoders", "heatmap", server.WHOLE, ()),
    ("encoders", "timeseries", server.SUCCESS, ("finished_reason",)),
    ("encoders", "timeseries", engine.STEP_ROWS, ()),
    ("encoders", "timeseries", server.REJECTIONS, ("cause",)),
]


@pytest.mark.parametrize(("board", "kind", "metric", "by"), PROMISED)
def test_what_one_looks_for_is_where_one_looks(
    board: str, kind: str, metric: Metric, by: tuple[str, ...]
) -> None:
    content = json.loads((CONFIGS / f"grafana/dashboards/{board}.json").read_text())
    queries = [t["expr"] for panel in panels(content) if panel["type"] == kind for t in panel["targets"]]
    found = [query for query in queries if re.search(rf"{metric.exposed}(_bucket|_sum|_count)?\b", query)]
    told_apart = [set(kept.split(", ")) for query in found for kept in re.findall(r" by \(([^)]*)\)", query)]
    assert found and (not by or any(set(by) <= kept for kept in told_apart))


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_panels_lie_beside_each_other(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= NUM_COLUMNS
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_legends_name_labels_that_their_queries_keep() -> None:
    num_named = 0
    for target in [t for board in boards() for panel in panels(board) for t in panel["targets"]]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            kept = re.search(r" by \(([^)]*)\)", target["expr"])
            assert kept is None or label in kept[1].split(", "), target["expr"]
            num_named += 1
    assert num_named > 15


def test_queries_cannot_name_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="request_rejections_total has no label reason; it has .*cause"):
        SCOPE.rate(server.REJECTIONS, "reason")
    with pytest.raises(ValueError, match="has no label route"):
        SCOPE.rate(server.SUCCESS, route='="x"')


def test_the_provisioned_source_and_folder_are_those_of_the_dashboards() -> None:
    provisioning = CONFIGS / "grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["type"] == "prometheus" and source["isDefault"]
    for board in boards():
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        assert variables["datasource"]["query"] == source["type"]
        assert {panel["datasource"]["uid"] for panel in panels(board)} == {"${datasource}"}
        for query in [t["expr"] for panel in panels(board) for t in panel["targets"]]:
            assert set(re.findall(r"\$(\w+)", query)) <= {"__rate_interval", *variables}
    provider = yaml.safe_load((provisioning / "dashboards/tokenloom.yaml").read_text())["providers"][0]
    assert provider["type"] == "file" and provider["options"]["path"] == "/etc/tokenloom/dashboards"


def test_other_objectives_make_other_rules(tmp_path: Path) -> None:
    arguments = ["dashboards", str(tmp_path), "--first-token-seconds", "0.75", "--error-ratio", "0.5"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    assert len(done.output.split()) == 4
    written = yaml.safe_load((tmp_path / "prometheus/alerts.yml").read_text())
    assert written == rules(Objectives(first_token_seconds=0.75, error_ratio=0.5))
    limits = {rule["alert"]: rule["expr"].rpartition(" > ")[2] for rule in written["groups"][0]["rules"]}
    assert limits["TokenloomFirstTokenSlow"] == "0.75" and limits["TokenloomErrors"] == "0.5"
    assert limits["TokenloomTokensSlow"] == "0.3"


def test_rules_are_promql_and_each_has_a_test() -> None:
    tests = yaml.safe_load((CONFIGS / "prometheus/alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    alerts = rules(Objectives())["groups"][0]["rules"]
    assert fired == {alert["alert"] for alert in alerts}
    for alert in alerts:
        promql_parser.parse(alert["expr"])


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [str(program("promtool")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", CONFIGS / "prometheus/alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    shipped = (CONFIGS / "prometheus/prometheus.yml").read_text()
    (tmp_path / "credentials").write_text("none")
    (tmp_path / "alerts.yml").write_text((CONFIGS / "prometheus/alerts.yml").read_text())
    (tmp_path / "prometheus.yml").write_text(shipped.replace("/etc/tokenloom/", f"{tmp_path}/"))
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_fires_too_late_is_noticed(tmp_path: Path) -> None:
    """That the rules' tests can fail: the same tests, with a rule that waits longer."""
    for name in ("alerts.yml", "alerts_test.yml"):
        content = (CONFIGS / "prometheus" / name).read_text()
        (tmp_path / name).write_text(content.replace("for: 1m", "for: 9m"))
    done = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert done.returncode != 0 and "TokenloomDown" in done.stdout + done.stderr
