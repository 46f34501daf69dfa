"""The README's configuration tables and commands are what the code has."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from engine.config import EngineConfig
from server.config import ServerConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_files_that_are_named_exist() -> None:
    for name in re.findall(r"configs/\w+\.toml", README):
        assert (ROOT / name).is_file()
