"""Random ragged batches over a paged cache in the GPU's layout, and plain float32 attention over them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from engine.batch import Batch, DeviceBatch
from engine.kernels.gpu.decode_attention import TILE_WORDS
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

DECODE_TILE = 16  # tokens of context
POISON = 1 << 30  # in integers that nobody may use
CHUNK = 8  # elements in 16 bytes


@dataclass(frozen=True, slots=True)
class Span:
    """What a row does this step."""

    num_tokens: int  # computed this step: 0 where the row waits
    context: int  # tokens with keys and values afterwards, at least num_tokens


def random_spans(num_rows: int, max_tokens: int, max_context: int, generator: torch.Generator) -> list[Span]:
    """Rows that wait, decode or have a chunk of up to max_tokens (at least 2) tokens; contexts of any length."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    spans = []
    for _ in range(num_rows):
        kind = draw(0, 5)  # one in six waits, half decode
        num_tokens = 0 if kind == 0 else 1 if kind < 4 else draw(2, max_tokens)
        earlier = draw(0, max(max_context - num_tokens, 0))
        spans.append(Span(num_tokens, max(num_tokens + earlier, 1)))
    return spans


def make_paged_batch(
    spans: Sequence[Span],
    shape: AttentionShape,
    generator: torch.Generator,
    *,
    prompt_tile: int = 16,
    pad_rows: int = 0,
    pad_tokens: int = 0,
) -> DeviceBatch:
    """A batch on the CPU: one row a span, blocks dealt out in random order to slots in random order.

    Behind the live rows, and behind a row's blocks in its table, integers are POISON; pads of tokens are as plan_step writes them.
    Every block of a row's context is its own; block ids run from 0 to num_cache_blocks(batch) - 1.
    """
    num_tokens = torch.tensor([span.num_tokens for span in spans], dtype=torch.int64)
    contexts = torch.tensor([span.context for span in spans], dtype=torch.int64)
    slots = torch.randperm(len(spans) + 3, generator=generator)[: len(spans)]
    tables = _deal_blocks(contexts, slots, shape.block_size, generator)
    starts = _starts(num_tokens)
    rows = torch.repeat_interleave(num_tokens)
    positions = torch.arange(len(rows)) + (contexts - num_tokens - starts[:-1])[rows]
    blocks = tables[slots[rows], positions // shape.block_size]
    decode = torch.where(num_tokens == 1, _decode_tiles(contexts, shape.window), 0)
    prompt = torch.where(num_tokens > 1, -(-num_tokens // prompt_tile), 0)
    counts = torch.stack((torch.tensor(len(spans)), num_tokens.sum(), decode.sum(), prompt.sum()))
    last = torch.where(num_tokens > 0, starts[1:] - 1, 0)
    return DeviceBatch(
        token_ids=_padded(torch.randint(0, 50, (len(rows),), generator=generator), pad_tokens, 0),
        positions=_padded(positions, pad_tokens, 0),
        cache_slots=_padded(blocks * shape.block_size + positions % shape.block_size, pad_tokens, -1),
        query_starts=_padded(starts, pad_rows, POISON),
        context_lens=_padded(contexts, pad_rows, POISON),
        block_tables=tables.int(),
        logit_ids=_padded(last, pad_rows, 0),
        counts=counts.int(),
        row_slots=_padded(slots, pad_rows, POISON),
        token_rows=_padded(rows, pad_tokens, -1),
        decode_starts=_padded(_starts(decode), pad_rows, POISON),
        prompt_starts=_padded(_starts(prompt), pad_rows, POISON),
        decode_tiles=torch.empty(0, TILE_WORDS, dtype=torch.int32),
    )


def move_batch(batch: DeviceBatch, device: torch.device) -> DeviceBatch:
    return DeviceBatch(*(getattr(batch, field.name).to(device) for field in fields(DeviceBatch)))


def find_tiles(batch: DeviceBatch, tiles: DecodeTiles) -> DeviceBatch:
    """A batch on the device, with what decode attention begins with."""
    found = replace(batch, decode_tiles=tiles.found.fill_(POISON))
    tiles(found)
    return found


def live_batch(batch: DeviceBatch) -> Batch:
    """Without pads, block tables by row: as the plain twins take it."""
    num_rows, num_tokens = batch.counts.tolist()[:2]
    return Batch(
        token_ids=batch.token_ids[:num_tokens],
        positions=batch.positions[:num_tokens],
        cache_slots=batch.cache_slots[:num_tokens],
        query_starts=batch.query_starts[: num_rows + 1],
        context_lens=batch.context_lens[:num_rows],
        block_tables=batch.block_tables[batch.row_slots[:num_rows].long()],
        logit_ids=batch.logit_ids[:num_rows],
    )


def num_cache_blocks(batch: DeviceBatch) -> int:
    """Blocks a cache needs for this batch, a few that no row has among them."""
    return int((batch.block_tables < POISON).sum()) + 3


def decode_tokens(batch: DeviceBatch) -> torch.Tensor:
    """int64 [n]: the tokens of rows that compute one."""
    return _tokens_where(batch, several=False)


def prompt_tokens(batch: DeviceBatch) -> torch.Tensor:
    """int64 [n]: the tokens of rows that compute more than one."""
    return _tokens_where(batch, several=True)


def make_qkv(batch: DeviceBatch, shape: AttentionShape, generator: torch.Generator) -> torch.Tensor:
    """Element [tokens, width] on the batch's device; pads are NaN, and so are keys and values: attention finds them in the cache."""
    qkv = torch.full((batch.num_tokens, shape.width), torch.nan)
    num_tokens, queries = int(batch.counts[1]), shape.num_heads * shape.head_dim
    qkv[:num_tokens, :queries] = torch.randn(num_tokens, queries, generator=generator)
    return qkv.to(batch.counts.device, shape.element)


def make_cache(batch: DeviceBatch, shape: AttentionShape, generator: torch.Generator) -> LayerCache:
    """Random keys and values at the rows' contexts, on the batch's device; NaN everywhere else: what must not be read."""
    sizes = (num_cache_blocks(batch), shape.num_kv_heads, shape.block_size, shape.head_dim)
    known = _known_places(batch, shape.block_size, sizes[0])[:, None, :, None]
    device = batch.counts.device

    def filled() -> torch.Tensor:
        values = torch.randn(sizes, generator=generator).masked_fill(~known, torch.nan)
        return to_paged(values.to(device, shape.element))

    return LayerCache(filled(), filled())


def to_paged(plain: torch.Tensor) -> torch.Tensor:
    """[blocks, kv_heads, block_size, head_dim] -> [blocks, kv_heads, block_size * head_dim] in cache.cuh's layout."""
    paged = torch.empty_like(plain).flatten(2)
    paged[:, :, cache_offsets(*plain.shape[2:]).flatten().to(plain.device)] = plain.flatten(2)
    return paged


def from_paged(paged: torch.Tensor, block_size: int) -> torch.Tensor:
    """The other way round."""
    head_dim = paged.shape[2] // block_size
    return paged[:, :, cache_offsets(block_size, head_dim).to(paged.device)]


def cache_offsets(block_size: int, head_dim: int) -> torch.Tensor:
    """int64 [block_size, head_dim]: where cache.cuh puts each element of one (block, head)."""
    segment = 64 if head_dim % 64 == 0 else 32
    tokens, channels = torch.arange(block_size).unsqueeze(1), torch.arange(head_dim).unsqueeze(0)
    chunks, phases = channels % segment // CHUNK, tokens % 8 if segment == 64 else tokens // 2 % 4
    rows = channels // segment * block_size + tokens
    return rows * segment + (chunks ^ phases) * CHUNK + channels % CHUNK


def reference_attention(
    qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, shape: AttentionShape
) -> torch.Tensor:
    """float32 [tokens, heads * head_dim] on qkv's device: causal softmax attention of every row's tokens; NaN for pads."""
    keys, values = (from_paged(paged, shape.block_size) for paged in (cache.keys, cache.values))
    queries = qkv[:, : shape.num_heads * shape.head_dim].float().view(qkv.shape[0], shape.num_heads, -1)
    out = torch.full_like(queries, torch.nan)
    starts, contexts, slots = (t.tolist() for t in (batch.query_starts, batch.context_lens, batch.row_slots))
    for row in range(int(batch.counts[0])):
        tokens = slice(starts[row], starts[row + 1])
        if tokens.start < tokens.stop:
            table = batch.block_tables[slots[row], : -(-contexts[row] // shape.block_size)].long()
            seen = LayerCache(*(_context(t, table, contexts[row]) for t in (keys, values)))
            out[tokens] = _attend(queries[tokens], seen, shape)
    return out.flatten(1)


def _context(plain: torch.Tensor, table: torch.Tensor, context: int) -> torch.Tensor:
    """float32 [kv_heads, context, head_dim]."""
    return plain[table].transpose(0, 1).flatten(1, 2)[:, :context].float()


def _attend(queries: torch.Tensor, seen: LayerCache, shape: AttentionShape) -> torch.Tensor:
    """queries float32 [tokens, heads, head_dim]: the last tokens of a context float32 [kv_heads, context, head_dim]."""
    num_tokens, context = queries.shape[0], seen.keys.shape[1]
    places = torch.arange(context, device=queries.device)
    ages = places[context - num_tokens :, None] - places  # [tokens, context]
    visible = (ages >= 0) & (ages < shape.window) if shape.window else ages >= 0
    group = shape.num_heads // shape.num_kv_heads
    scores = torch.einsum("thd,hcd->htc", queries, seen.keys.repeat_interleave(group, 0)) * shape.scale
    if shape.softcap:
        scores = shape.softcap * (scores / shape.softcap).tanh()
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("htc,hcd->thd", weights, seen.values.repeat_interleave(group, 0))


def _deal_blocks(
    contexts: torch.Tensor, slots: torch.Tensor, block_size: int, generator: torch.Generator
) -> torch.Tensor:
    """int64 [slots, max_blocks]."""
    num_blocks = -(-contexts // block_size)
    order = torch.randperm(int(num_blocks.sum()) + 3, generator=generator)
    tables = torch.full((len(slots) + 3, int(num_blocks.max()) + 1), POISON, dtype=torch.int64)
    for row, mine in enumerate(torch.split(order[: int(num_blocks.sum())], num_blocks.tolist())):
        tables[slots[row], : len(mine)] = mine
    return tables


def _known_places(batch: DeviceBatch, block_size: int, num_blocks: int) -> torch.Tensor:
    """bool [blocks, block_size]: which have a key and a value, on the CPU."""
    known = torch.zeros(num_blocks, block_size, dtype=torch.bool)
    tables, slots, contexts = (
        t.cpu().long() for t in (batch.block_tables, batch.row_slots, batch.context_lens)
    )
    for row in range(int(batch.counts[0])):
        places = torch.arange(int(contexts[row]))
        known[tables[slots[row], places // block_size], places % block_size] = True
    return known


def _decode_tiles(contexts: torch.Tensor, window: int) -> torch.Tensor:
    first = (contexts - window).clamp_min(0) if window else torch.zeros_like(contexts)
    return -(-contexts // DECODE_TILE) - first // DECODE_TILE


def _tokens_where(batch: DeviceBatch, several: bool) -> torch.Tensor:
    num_rows = int(batch.counts[0])
    num_tokens = batch.query_starts.long()[: num_rows + 1].diff()
    wanted = torch.repeat_interleave(num_tokens > 1 if several else num_tokens == 1, num_tokens)
    return wanted.nonzero().flatten()


def _starts(sizes: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def _padded(values: torch.Tensor, num_pads: int, pad: int) -> torch.Tensor:
    return torch.nn.functional.pad(values.int(), (0, num_pads), value=pad)
