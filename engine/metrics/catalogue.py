"""The engine's metrics, by vLLM's names where it has the metric."""

from engine.metrics.metric import STEP_BUCKETS, counter, gauge, histogram

RUNNING = gauge("num_requests_running", "Requests that have a row.")
WAITING = gauge("num_requests_waiting", "Requests that wait for a row.")
KV_USAGE = gauge("kv_cache_usage_perc", "Part of the KV cache in use, 0 to 1.")
PREEMPTIONS = counter("num_preemptions", "Requests that lost their row and were queued again.")
PREFIX_QUERIES = counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
PREFIX_HITS = counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
STEP_TOKENS = histogram("iteration_tokens_total", "Tokens computed in a step.", buckets=STEP_BUCKETS)
STEP_ROWS = histogram("step_rows", "Rows that computed something in a step.", buckets=STEP_BUCKETS)
STEP_SECONDS = histogram("step_time_seconds", "Time of a step.")
HOST_GAP = histogram("step_host_gap_seconds", "Time between a step's end and the next one's start.")
LAUNCHES = counter(
    "step_launches", "Steps, by how they were launched: eager, captured or replayed as a graph.", "launch"
)
MOVES = counter("compaction_moves", "Rows that moved into the places of rows that had ended.")
ABORTS = counter("engine_aborts", "Requests that the engine was told to stop.", "cause")
REFUSALS = counter("engine_rejections", "Requests that the engine did not queue.", "cause")
STARTUP = gauge("startup_phase_seconds", "Time of a phase of the engine's start.", "phase")
CACHE_LAYOUT = gauge(
    "cache_config_info",
    "How the KV cache is laid out, in the labels.",
    "block_size",
    "num_gpu_blocks",  # the name that dashboards know
    "cache_dtype",
    "enable_prefix_caching",
)
MEMORY = gauge("process_memory_bytes", "Resident memory of a process in bytes.", "process")
