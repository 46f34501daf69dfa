"""When the requests of one call are computed: nobody waits for one of them, all are wanted soon."""

from collections.abc import Sequence

from engine.request import Submit

# Of a step, at the least: with fewer a GPU spends as long on reading its weights as on multiplying with them.
FEWEST_TOKENS = 512


def longest_first(submits: Sequence[Submit]) -> list[Submit]:
    """By the most tokens that the answer may have, so that no long one is left to be computed alone at the end (Graham, "Bounds on
    Multiprocessing Timing Anomalies", 1969). Equal ones stay in their order."""
    return sorted(submits, key=lambda submit: -submit.sampling.max_tokens)


def even_tokens(submits: Sequence[Submit]) -> int:
    """How many tokens a step computes if all answers are to end with the longest.

    Prompts read any faster are answered beside each other, and the longest answer goes on with few beside it; read so, they cost
    little in steps that are computed anyway.
    """
    longest = max((submit.sampling.max_tokens for submit in submits), default=1)
    total = sum(len(submit.prompt) + submit.sampling.max_tokens for submit in submits)
    return max(FEWEST_TOKENS, -(-total // longest))
