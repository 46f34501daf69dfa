"""The blocks that a request needs to begin, whether there are so many, and who has them where there are not."""

from engine.config import ConfigError, EngineConfig
from engine.scheduler.blocks import BlockPool
from engine.scheduler.holdings import LiveRows
from engine.scheduler.queue import Request


class Room:
    """`max_model_len` bounds prompt and output."""

    def __init__(self, config: EngineConfig, pool: BlockPool, max_model_len: int) -> None:
        _check_fits(config, max_model_len, pool.num_blocks)
        self._pool = pool
        self._block_size = config.block_size
        self._max_model_len = max_model_len
        self._whole_answers = config.deterministic
        self._refused: Request | None = None  # the last one that found too few blocks

    def limit(self, request: Request) -> int:
        """Tokens at which it ends, if nothing ends it before."""
        return min(request.num_prompt + request.sampling.max_tokens, self._max_model_len)

    def num_blocks(self, request: Request) -> int:
        """For the tokens it has; where deterministic for all it may come to have, the last of which is never computed."""
        num_tokens = self.limit(request) - 1 if self._whole_answers else request.num_tokens
        return -(-num_tokens // self._block_size)

    def take(self, request: Request, shared: list[int], rows: LiveRows) -> list[int] | None:
        """Its blocks, of which `shared` are the first; None if there are too few beside the rows there are."""
        num_new = self.num_blocks(request) - len(shared)
        if not self._has(num_new + self._pool.num_unheld(shared), rows):
            self._refused = request
            return None
        self._pool.share(shared)
        return shared + [self._pool.take() for _ in range(num_new)]

    def find_holder(self, request: Request, rows: LiveRows, has_slot: bool) -> str | None:
        """Who has most of what it lacks, a row or blocks, if that is more than its own owner would have with it."""
        if not has_slot:
            return rows.of_owners.find_above(request.owner, 1)
        was_refused, self._refused = self._refused is request, None
        num_blocks = self.num_blocks(request)
        if not was_refused or self._has(num_blocks, rows):
            return None
        return rows.blocks_of_owners.find_above(request.owner, num_blocks)

    def _has(self, num_blocks: int, rows: LiveRows) -> bool:
        """So many, and some for the rows there are, so that an admission is not followed by a preemption."""
        reserve = 0 if self._whole_answers else min(len(rows), max(1, self._pool.num_blocks // 32))
        return self._pool.num_available >= num_blocks + reserve


def _check_fits(config: EngineConfig, max_model_len: int, num_blocks: int) -> None:
    config.check()
    kv_tokens = num_blocks * config.block_size
    if max_model_len > kv_tokens:
        accepted = (
            f"1 to the {kv_tokens} tokens of the KV cache ({num_blocks} blocks of {config.block_size}): "
            "raise kv_tokens or kv_memory, or lower max_model_len"
        )
        raise ConfigError("max_model_len", max_model_len, accepted)
