"""One target for as long as one likes, with inputs that coverage leads to: python -m tests.fuzz.guided TARGET [libFuzzer's options].

It ends by itself with -max_total_time=SECONDS or -runs=NUMBER; what it finds it prints, and leaves in a file.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
    include=["engine.checkpoint", "engine.weights.safetensors", "server.text", "server.sse", "server.schema"],
    enable_loader_override=False,
):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.raw_folder import CONFIG, TOKENIZER, safetensors, tensor
from tests.fuzz.raw_gguf import RawGguf

LIMITS = ("-timeout=10", "-rss_limit_mb=3000", "-max_len=4096", "-print_final_stats=1")
TEMPLATE = (
    "{% for m in messages if m.role != 'x' %}{{ m.content|trim ~ m['role'].upper()|tojson }}{% endfor %}"
)
SEEDS: dict[str, bytes] = {
    "gguf": RawGguf().content(),
    "config": json.dumps(CONFIG).encode(),
    "tokenizer": json.dumps(TOKENIZER).encode(),
    "safetensors": safetensors({"a": tensor(0, 16)}, bytes(16)),
    "template": TEMPLATE.encode(),
    "sse": "plain, \u2028, \U0001f600 and \r\n".encode(),
    "stop": b"ab\0bc\0xxabcx",
}


def main(name: str, options: list[str]) -> None:
    """Does not return: libFuzzer ends the process, with a status that is not 0 if it found a fault."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder, corpus = Path(place, "model"), Path(place, "corpus")
        folder.mkdir()
        corpus.mkdir()
        (corpus / "seed").write_bytes(SEEDS[name])

        def one(data: bytes) -> None:
            target(data, folder)

        atheris.Setup([sys.argv[0], *LIMITS, *options, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
