"""Plans by lot, of the kind that the scheduler makes: arrivals, chunks, blocks, evictions, and words about slots that have no row."""

from dataclasses import dataclass, field
from random import Random

import numpy as np

from engine.request import SamplingParams
from engine.runner.rows import RowBuffers
from engine.step import Admit, Plan

MAX_BLOCK_ID = 1000


@dataclass(slots=True)
class Planner:
    """Makes the plan of the next step from what the rows on the CPU say."""

    random: Random
    rows: RowBuffers
    vocab_size: int
    block_size: int
    max_admits: int
    num_steps: int = 0
    just_ended: set[int] = field(default_factory=set)  # slots that a launched plan may still name

    @property
    def max_requests(self) -> int:
        return self.rows.token_ids.shape[0]

    @property
    def max_model_len(self) -> int:
        return self.rows.token_ids.shape[1]

    def plan(self) -> Plan:
        self.num_steps += 1
        random = self.random
        evict = tuple(random.choices(range(self.max_requests), k=random.choice((0, 0, 1, 3))))
        live = [slot for slot in self.rows.columns.slot.tolist() if slot not in evict]
        free = sorted(set(range(self.max_requests)) - set(live) - self.just_ended)
        random.shuffle(free)
        admits = tuple(map(self.admit, free[: random.randint(0, self.max_admits)]))
        gone = [slot for slot in range(self.max_requests) if self.rows.row_of_slot[slot] < 0]
        void = set(gone) - {admit.slot for admit in admits}
        return Plan(
            step=self.num_steps,
            evict=evict,
            admit=admits,
            blocks=self._blocks(live, void),
            chunks=self._chunks(live, admits, void),
        )

    def admit(self, slot: int) -> Admit:
        random = self.random
        num_tokens = random.choice((1, 2, random.randint(1, self.max_model_len - 1)))
        num_blocks = -(-num_tokens // self.block_size)
        return Admit(
            slot=slot,
            token_ids=np.array(random.choices(range(self.vocab_size), k=num_tokens), np.int32),
            num_prompt=random.randint(1, num_tokens),
            num_cached=random.choice((0, num_tokens - 1, random.randint(0, num_tokens - 1))),
            blocks=tuple(random.choices(range(MAX_BLOCK_ID), k=num_blocks)),
            sampling=self._sampling(),
        )

    def _sampling(self) -> SamplingParams:
        random = self.random
        tokens = range(self.vocab_size)
        return SamplingParams(
            max_tokens=random.randint(1, self.max_model_len),
            min_tokens=random.choice((0, 0, 9)),
            temperature=random.random(),
            top_k=random.randint(-1, self.vocab_size + 1),
            presence_penalty=random.choice((0.0, 0.0, 0.5)),
            logit_bias={random.choice(tokens): 1.5} if random.random() < 0.2 else {},
            allowed_token_ids=tuple(random.sample(tokens, 3)) if random.random() < 0.2 else (),
            banned_token_ids=tuple(random.sample(tokens, 2)) if random.random() < 0.2 else (),
            stop_token_ids=tuple(random.choices(tokens, k=random.choice((0, 0, 1, 4, 64)))),
            seed=random.choice((-1, random.getrandbits(64))),
            logprobs=random.choice((None, 0, 3)),
        )

    def _blocks(self, live: list[int], void: set[int]) -> tuple[tuple[int, int], ...]:
        """The block that a row's next token needs, sometimes more than one, in an order by lot."""
        columns, pairs = self.rows.columns, [(slot, 0) for slot in sorted(void)[:2]]
        for slot in live:
            row = int(self.rows.row_of_slot[slot])
            num_blocks = int(columns.num_blocks[row])
            room = -(-self.max_model_len // self.block_size) - num_blocks
            needed = -(-int(columns.num_tokens[row]) // self.block_size) - num_blocks
            num_new = min(room, max(needed, self.random.choice((0, 0, 0, 2))))
            pairs += [(slot, self.random.randrange(MAX_BLOCK_ID)) for _ in range(num_new)]
        self.random.shuffle(pairs)
        return tuple(pairs)

    def _chunks(
        self, live: list[int], admits: tuple[Admit, ...], void: set[int]
    ) -> tuple[tuple[int, int], ...]:
        columns, pending = self.rows.columns, {}
        for slot in live:
            row = int(self.rows.row_of_slot[slot])
            pending[slot] = int(columns.num_tokens[row] - columns.num_computed[row])
        pending |= {admit.slot: len(admit.token_ids) - admit.num_cached for admit in admits}
        chunked = [(slot, n) for slot, n in pending.items() if n > 1 and self.random.random() < 0.8]
        chunks = [(slot, self.random.choice((1, n, self.random.randint(1, n)))) for slot, n in chunked]
        return tuple(chunks + [(slot, 3) for slot in sorted(void)[:1]])
