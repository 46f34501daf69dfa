"""What holds the tree together: who may import whom, what stays light, and names that must not be taken."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.kernels.gpu.compiler import source_dir

ROOT = Path(__file__).parents[1]
PYTHON = sorted(
    path for folder in ("server", "engine", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
MAX_LINES = 300

# What server code may use of the engine.
SERVER_MAY = ("engine.request", "engine.config", "engine.client", "engine.checkpoint")
# The parent of the engine's process names its entry, which loads the rest where it runs; both ends share the
# wire and the metrics' form.
SUPERVISION_MAY = (
    "engine.process",
    "engine.wire",
    "engine.metrics.family",
    "engine.metrics.metric",
    "engine.metrics.catalogue",
    "engine.metrics.observations",
)
SUPERVISION = ("server/process", "server/metrics")
# Planning is plain Python: quick to start, and the same on every machine.
PLAIN = ("engine/request.py", "engine/config.py", "engine/scheduler")
# Each may use those to its right.
LAYERS = ("engine.models", "engine.layers", "engine.kernels")
ABOVE_LAYERS = (
    "engine.loop",
    "engine.scheduler",
    "engine.runner",
    "engine.sampler",
    "engine.process",
    "engine.client",
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, inside functions too; those for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node) for block in ast.walk(tree) if _is_typing_block(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def files_in(folder: str) -> list[Path]:
    return [path for path in PYTHON if path.is_relative_to(ROOT / folder)]


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def modules_used(path: Path, package: str) -> set[str]:
    """The modules (not the names in them) of a package that a file imports."""
    found = {name for name in imports_of(path) if is_within(name, package)}
    return {name for name in found if (ROOT / (name.replace(".", "/") + ".py")).exists() or _is_package(name)}


def _is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/") / "__init__.py").exists()


@pytest.mark.parametrize("path", files_in("server"), ids=module_of)
def test_server_uses_the_engine_only_through_its_door(path: Path) -> None:
    supervises = any(path.is_relative_to(ROOT / folder) for folder in SUPERVISION)
    allowed = SERVER_MAY + (SUPERVISION_MAY if supervises else ())
    for module in modules_used(path, "engine") - {"engine"}:
        assert any(is_within(module, name) for name in allowed), f"{path} imports {module}"
    assert not [name for name in imports_of(path) if is_within(name, "torch")], path


@pytest.mark.parametrize("path", files_in("engine"), ids=module_of)
def test_engine_never_uses_the_server(path: Path) -> None:
    used = {name for name in imports_of(path) if is_within(name, "server")}
    if module_of(path) == "engine.offline.llm":
        used = {name for name in used if not is_within(name, "server.text")}
    assert not used


@pytest.mark.parametrize("path", [path for place in PLAIN for path in files_in(place)], ids=module_of)
def test_planning_is_plain(path: Path) -> None:
    heavy = ("torch", "numpy", "cupy", "zmq")
    for module in imports_of(path):
        assert not any(is_within(module, package) for package in heavy), f"{path} imports {module}"


@pytest.mark.parametrize("place", range(len(LAYERS)))
def test_layers_import_downward(place: int) -> None:
    forbidden = LAYERS[:place] + ABOVE_LAYERS
    for path in files_in(LAYERS[place].replace(".", "/")):
        for module in imports_of(path):
            assert not any(is_within(module, package) for package in forbidden), f"{path} imports {module}"


def loaded_by(imports: str) -> set[str]:
    code = f"import json, sys, {imports}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "imports", ["engine", "server.app, engine.client", "server.process.supervisor", "server.process.worker"]
)
def test_server_processes_load_no_torch(imports: str) -> None:
    assert not {"torch", "transformers"} & loaded_by(imports)


def test_messages_and_blocks_load_no_numpy() -> None:
    assert "numpy" not in loaded_by("engine.request, engine.config, engine.scheduler.blocks")


def test_packages_come_from_this_tree() -> None:
    for name in ("server", "engine"):
        file = importlib.import_module(name).__file__
        assert file is not None
        assert Path(file).parent == ROOT / name


def test_the_name_cuda_is_left_to_its_owner() -> None:
    """NVIDIA ships a namespace package called cuda; an __init__.py in a folder so named hides it."""
    assert not list((ROOT / "cuda").rglob("__init__.py"))
    assert not list((ROOT / "cuda").rglob("*.py"))
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", PYTHON, ids=module_of)
def test_files_stay_short(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {num_lines} lines; split it along a noun"


def test_the_lock_pins_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "configs/requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin and "://" not in pin and not pin.startswith("-") for pin in pins)
    pinned = {pin.partition("==")[0].lower() for pin in pins}
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {_name(requirement) for requirement in wanted} - {"tokenloom"}
    assert names <= pinned
    assert "torch==2.13.0" in pins
    assert not [pin for pin in pins if pin.startswith(("nvidia-", "cuda-", "triton"))]


def test_the_wheel_has_the_kernels_sources_where_the_compiler_looks() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    places = wheel["targets"]["wheel"]["force-include"]
    assert places == {"cuda": "engine/kernels/gpu/source"}
    assert source_dir() == ROOT / "cuda"
    assert list((ROOT / "cuda/include").glob("*.cuh"))


def test_what_compiles_the_kernels_is_pinned_and_an_extra_brings_it() -> None:
    lines = (ROOT / "configs/cubins.lock").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {_name(wanted) for wanted in extras["cuda13"]} - {"cupy-cuda13x"} == pins.keys() - {
        "cuda-pathfinder"
    }
    older = {_name(wanted).removesuffix("-cu12") for wanted in extras["cuda12"]}
    assert older - {"cupy-cuda12x"} == pins.keys() - {"cuda-pathfinder"}


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement)[0].lower()


def test_make_help_explains_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    explained = {line.split()[1] for line in shown.splitlines() if line.strip().startswith("make ")}
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == set(phony.split())
