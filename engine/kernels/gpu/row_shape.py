"""What the kernels that keep the rows are compiled for."""

from dataclasses import dataclass

from engine.columns import FLOAT_COLUMNS, INT_COLUMNS
from engine.request import MAX_STOP_IDS

MAX_ROWS = 4096  # a block that plans the moves of a reorder holds so many in shared memory
DECODE_TILE = 16  # tokens of context


@dataclass(frozen=True, slots=True)
class StepShape:
    """What planning a step has to know of the attention kernels and the cache."""

    block_size: int
    window: int  # a token sees at most this many tokens, itself included; 0: all before it
    prompt_tile: int  # query tokens of a tile of the prompt attention

    def defines(self) -> dict[str, int]:
        return {
            **column_defines(),
            "BLOCK_SIZE": self.block_size,
            "WINDOW": self.window,
            "PROMPT_TILE": self.prompt_tile,
        }


def column_defines() -> dict[str, int]:
    """Where each integer column lies: COLUMN_NUM_TOKENS and so on; and how many columns there are."""
    places = {f"COLUMN_{name.upper()}": place for place, name in enumerate(INT_COLUMNS)}
    widths = {
        "NUM_INTS": len(INT_COLUMNS),
        "NUM_FLOATS": len(FLOAT_COLUMNS),
        "MAX_STOP_IDS": MAX_STOP_IDS,
    }
    return places | widths
