"""What a run of the encoder benchmark found, set against what it is measured with."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from benchmarks.encoder_attention_gpu import AttentionTime
from benchmarks.encoder_families_gpu import FamilyTime
from benchmarks.encoder_layers_gpu import LayersTime, SkewTime, StageTime

MEAN_BATCH = 16  # means are over the cells of this batch
BUSY_TOKENS = 5000  # from here on the floor is in reach
Ratios = dict[str, float]  # by peer: its time over ours


@dataclass(slots=True)
class Findings:
    """Filled part by part."""

    attention: list[AttentionTime] = field(default_factory=list)
    layers: list[LayersTime] = field(default_factory=list)
    stages: list[StageTime] = field(default_factory=list)
    skew: list[SkewTime] = field(default_factory=list)
    families: list[FamilyTime] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """For JSON."""
        means = {"attention": self.attention_means(), "layers": self.layers_means()}
        return {
            "geometric_means": means,
            "most_over_floor": self.most_over_floor(),
            "packing_cost": self.packing_cost(),
            "losing": list(self.losing()),
            **asdict(self),
        }

    def attention_means(self) -> Ratios:
        return _means(attention_ratios(t) for t in self.attention if t.batch == MEAN_BATCH)

    def layers_means(self) -> Ratios:
        return _means(layers_ratios(t) for t in self.layers if t.batch == MEAN_BATCH)

    def most_over_floor(self) -> float | None:
        """Of the cells with many tokens: the largest time of all layers over its floor."""
        ratios = [t.ours_ms / t.floor_ms for t in self.layers if t.tokens >= BUSY_TOKENS]
        return round(max(ratios), 3) if ratios else None

    def packing_cost(self) -> float | None:
        """Of a step in which nothing would be padded."""
        return round(self.skew[-1].packing_cost, 5) if self.skew else None

    def losing(self) -> Iterator[str]:
        """Cells where somebody is faster, and how much."""
        ratios = [("attention", t.batch, t.max_len, attention_ratios(t)) for t in self.attention]
        ratios += [("layers", t.batch, t.max_len, layers_ratios(t)) for t in self.layers]
        ratios += [(t.family, t.batch, t.max_len, family_ratios(t)) for t in self.families]
        for what, batch, max_len, by_peer in ratios:
            for peer, ratio in by_peer.items():
                if ratio < 1:
                    yield f"{what} {batch} x {max_len}: {peer} takes {ratio:.3f} of our time"


def attention_ratios(t: AttentionTime) -> Ratios:
    peers = {"unfused": t.unfused_us, "split": t.split_us, "sdpa": t.sdpa_us, "fa3": t.fa3_us}
    return _ratios(t.ours_us, peers)


def layers_ratios(t: LayersTime) -> Ratios:
    return _ratios(t.ours_ms, {"unfused": t.unfused_ms, "sdpa": t.sdpa_ms, "compiled": t.compiled_ms})


def family_ratios(t: FamilyTime) -> Ratios:
    return _ratios(t.ours_ms, {"unfused": t.unfused_ms, "sdpa": t.sdpa_ms, "compiled": t.compiled_ms})


def _ratios(ours: float, peers: Mapping[str, float | None]) -> Ratios:
    return {name: theirs / ours for name, theirs in peers.items() if theirs is not None}


def _means(ratios: Iterable[Ratios]) -> Ratios:
    """Geometric, of the peers that ran in every cell."""
    cells = list(ratios)
    common = [name for name in cells[0] if all(name in cell for cell in cells)] if cells else []
    return {name: round(_geometric_mean([cell[name] for cell in cells]), 3) for name in common}


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
