"""How long the next plan waits, while a step is under way, for requests that may still come.

Made as soon as there is a step to follow, a plan would leave what comes during that step to the one after the next.
"""

# Of what the step under way should take at the least: steps of one size take now more and now less.
PART = 0.5
HOST_SECONDS = 0.003  # to plan and launch


def find_patience(least_seconds: float) -> float:
    """Seconds from the begin of a step that should take at least so many."""
    return max(0.0, PART * least_seconds - HOST_SECONDS)
