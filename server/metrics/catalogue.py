"""The server's metrics, by vLLM's names where it has the metric."""

from engine.metrics.metric import COUNT_BUCKETS, counter, gauge, histogram

PROMPT_TOKENS = counter("prompt_tokens", "Prompt tokens of requests that got a row.")
CACHED_TOKENS = counter("prompt_tokens_cached", "Prompt tokens found in the prefix cache.")
GENERATION_TOKENS = counter("generation_tokens", "Tokens generated.")
SUCCESS = counter("request_success", "Requests that ended.", "finished_reason")
CANCELLATIONS = counter("request_cancellations", "Requests that were cut short.", "cause")
FIRST_TOKEN = histogram("time_to_first_token_seconds", "From a request's arrival to its first token.")
BETWEEN_TOKENS = histogram("inter_token_latency_seconds", "Between two tokens of a request.")
PER_TOKEN = histogram(
    "request_time_per_output_token_seconds", "A request's mean time for a token after the first."
)
WHOLE = histogram("e2e_request_latency_seconds", "From a request's arrival to its end.")
QUEUE = histogram("request_queue_time_seconds", "From reaching the engine to getting a row.")
INFERENCE = histogram("request_inference_time_seconds", "From getting a row to the last token.")
PREFILL = histogram("request_prefill_time_seconds", "From getting a row to the first token.")
DECODE = histogram("request_decode_time_seconds", "From the first token to the last.")
PROMPT = histogram("request_prompt_tokens", "Prompt tokens of a request.", buckets=COUNT_BUCKETS)
GENERATED = histogram("request_generation_tokens", "Tokens generated for a request.", buckets=COUNT_BUCKETS)
MAX_TOKENS = histogram("request_params_max_tokens", "A request's max_tokens.", buckets=COUNT_BUCKETS)
CHOICES = histogram("request_params_n", "A request's n.", buckets=(1, 2, 5, 10, 20))
REJECTIONS = counter("request_rejections", "Requests that were not taken.", "cause")
RESPONSES = counter("http_responses", "HTTP responses.", "method", "route", "status")
RESPONSE_SECONDS = histogram(
    "http_response_seconds", "From an HTTP request's head to its response's end.", "method", "route"
)
RESTARTS = counter("engine_restarts", "Times that the engine died and was started again.")
TASKS = gauge("process_tasks", "Tasks of a server process's event loop, sampled.", "process")
DESCRIPTORS = gauge(
    "process_open_descriptors", "Open files and sockets of a server process, sampled.", "process"
)
BUILD = gauge("build_info", "What runs here, in the labels.", "version", "python")
