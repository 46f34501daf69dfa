"""What the engine does with its time and its memory."""

import engine.metrics.catalogue as engine
from server.metrics import catalogue as server
from server.metrics.dashboards.panel import Panel, Section
from server.metrics.dashboards.parts import SCOPE, heat_map, levels, quantiles, rates


def engine_dashboard() -> list[Section]:
    return [_steps(), _cache(), _start(), _processes()]


def _steps() -> Section:
    steps = {"steps": SCOPE.rate(engine.STEP_SECONDS)}
    share = f"{SCOPE.total(engine.HOST_GAP)} / ({SCOPE.total(engine.HOST_GAP)} + {SCOPE.total(engine.STEP_SECONDS)})"
    gap_text = "Part of the time that no step was computing while there was work."
    busy, busy_text = (
        {"busy": SCOPE.total(engine.STEP_SECONDS)},
        "Part of all time that a step was computing.",
    )
    moves = {"moves": SCOPE.rate(engine.MOVES)}
    return Section(
        "Steps",
        [
            heat_map("Time of a step", engine.STEP_SECONDS),
            quantiles("Time of a step", engine.STEP_SECONDS),
            quantiles("Host gap between steps", engine.HOST_GAP, width=8),
            levels("Host gap, part of the time", "percentunit", {"gap": share}, gap_text),
            levels("Steps a second", "short", steps, "Steps that computed something."),
            levels("Device busy", "percentunit", busy, busy_text),
            rates("Steps by launch", engine.LAUNCHES, "launch", "ops"),
            levels("Rows moved a second", "short", moves, engine.MOVES.text),
            heat_map("Tokens a step", engine.STEP_TOKENS, "short"),
            quantiles("Rows a step", engine.STEP_ROWS, "short"),
        ],
    )


def _cache() -> Section:
    hits = f"{SCOPE.rate(engine.PREFIX_HITS)} / {SCOPE.rate(engine.PREFIX_QUERIES)}"
    tokens = {
        "looked up": SCOPE.rate(engine.PREFIX_QUERIES),
        "found": SCOPE.rate(engine.PREFIX_HITS),
    }
    layout = "{{num_gpu_blocks}} blocks of {{block_size}} tokens, {{cache_dtype}}"
    return Section(
        "KV cache",
        [
            levels("In use", "percentunit", {"in use": SCOPE.max(engine.KV_USAGE)}, engine.KV_USAGE.text),
            levels("Prefix hits", "percentunit", {"hits": hits}, "Part of the prompt tokens that was found."),
            levels("Prefix tokens a second", "short", tokens, "Prompt tokens looked up, and found."),
            levels(
                "Preemptions a second",
                "short",
                {"preemptions": SCOPE.rate(engine.PREEMPTIONS)},
                engine.PREEMPTIONS.text,
                12,
            ),
            Panel(
                "Layout",
                "stat",
                "short",
                {layout: SCOPE.series(engine.CACHE_LAYOUT)},
                engine.CACHE_LAYOUT.text,
                12,
                shows="name",
            ),
        ],
    )


def _start() -> Section:
    phases = {"{{phase}}": SCOPE.sum(engine.STARTUP, "phase")}
    return Section(
        "Start and end",
        [
            Panel("Phases of the start", "bargauge", "s", phases, engine.STARTUP.text, 12),
            levels("Restarts", "short", {"restarts": SCOPE.sum(server.RESTARTS)}, server.RESTARTS.text, 12),
            rates("Requests stopped by cause", engine.ABORTS, "cause", width=12),
            rates("Requests refused by cause", engine.REFUSALS, "cause", width=12),
        ],
    )


def _processes() -> Section:
    memory = {"{{process}}": SCOPE.sum(engine.MEMORY, "process")}
    held = {
        f"{what}, {{{{process}}}}": SCOPE.sum(metric, "process")
        for what, metric in (("tasks", server.TASKS), ("descriptors", server.DESCRIPTORS))
    }
    versions = {"{{version}}, Python {{python}}": SCOPE.sum(server.BUILD, "version", "python")}
    return Section(
        "Processes",
        [
            levels("Resident memory", "bytes", memory, engine.MEMORY.text, 12),
            levels(
                "Tasks and descriptors", "short", held, f"{server.TASKS.text} {server.DESCRIPTORS.text}", 12
            ),
            Panel("Version", "stat", "short", versions, server.BUILD.text, shows="name"),
        ],
    )
