"""The README's configuration tables and commands are what the code has, and what the documents name is there."""

import html
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.plot_results import PICTURE, draw, find_panels
from engine.config import EngineConfig
from server.config import ServerConfig
from server.openapi import ANSWERS, METRICS, WORDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks/results"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *RESULTS.glob("*.md")])


@pytest.mark.parametrize(("table", "config"), [("server", ServerConfig()), ("engine", EngineConfig())])
def test_configuration_tables(table: str, config: ServerConfig | EngineConfig) -> None:
    section = README.split(f"| `[{table}]` |")[1].split("\n\n")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, flags=re.MULTILINE))
    values = tomllib.loads("\n".join(f"{name} = {value}" for name, value in shown.items()))
    assert values == {field.name: getattr(config, field.name) for field in fields(config)}


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make setup", "make check", "make test", "make cubins"]
    for command in commands:
        assert re.search(rf"^{command}\b", README, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for place, anchor in (link.split("#") if "#" in link else (link, "") for link in links):
        target = page.parent / place if place else page
        assert target.exists(), place
        assert not anchor or anchor in anchors_of(target), anchor
    for name in re.findall(r"`((?:configs|docs|docker|benchmarks|tests)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / name).is_file(), name
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_routes_that_are_named_are_there() -> None:
    section = README.split("\n## Routes\n")[1].split("\n## ")[0]
    named = re.findall(r"(/[\w/.*]+)", "".join(re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)))
    assert len(named) > 10
    assert set(named) <= {*ANSWERS, *WORDS, METRICS, "/docs", "/openapi.json", "/admin/*"}


def test_the_page_of_results_names_all_of_them() -> None:
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    for file in RESULTS.iterdir():
        assert file.name in page or file.name == "README.md", file.name


def test_the_picture_shows_the_results(tmp_path: Path) -> None:
    draw(tmp_path / "peers.svg")
    for picture in (PICTURE, tmp_path / "peers.svg"):
        (shown,) = re.findall(r"<dc:description>(.*?)</dc:description>", picture.read_text(encoding="utf-8"))
        assert json.loads(html.unescape(shown)) == find_panels(), "draw it again"
