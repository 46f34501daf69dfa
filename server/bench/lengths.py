"""How long prompts and answers are: `62`, `uniform:16:512` or `lognormal:200:0.8:2048`."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ACCEPTED = "62 (all the same), uniform:MIN:MAX, lognormal:MEDIAN:SIGMA or lognormal:MEDIAN:SIGMA:MAX"


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts, all at least 1."""

    kind: Literal["fixed", "uniform", "lognormal"]
    low: float  # fixed: the length; uniform: the least; lognormal: the median
    high: float  # uniform and lognormal: the most
    sigma: float = 0.0  # lognormal: of the logarithm

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        match self.kind:
            case "fixed":
                return [int(self.low)] * count
            case "uniform":
                return [int(n) for n in rng.integers(int(self.low), int(self.high) + 1, count)]
            case "lognormal":
                drawn = rng.lognormal(np.log(self.low), self.sigma, count)
                return [int(n) for n in np.clip(np.rint(drawn), 1, self.high)]


def parse_lengths(text: str) -> Lengths:
    """Raises ValueError that says what is accepted."""
    kind, *numbers = text.split(":") if ":" in text else ["fixed", text]
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if not all(map(math.isfinite, values)):
        values = []
    match kind, values:
        case "fixed", [length] if length >= 1:
            return Lengths("fixed", length, length)
        case "uniform", [low, high] if 1 <= low <= high:
            return Lengths("uniform", low, high)
        case "lognormal", [median, sigma] if median >= 1 and sigma >= 0:
            return Lengths("lognormal", median, float("inf"), sigma)
        case "lognormal", [median, sigma, high] if 1 <= median <= high and sigma >= 0:
            return Lengths("lognormal", median, high, sigma)
    raise ValueError(f"{text!r} is not a length; accepted: {ACCEPTED}")
