"""How long the fuzzing tests look: as hypothesis's profile says, which `--hypothesis-profile=long` makes longer.

The short look is the same each time: what it finds is the fault of the change that it is run for. The long one is for chance.
"""

from hypothesis import HealthCheck, settings

LONG = "long"
SLOW_AND_SHARED = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.function_scoped_fixture,
)


def register() -> None:
    settings.register_profile(LONG, max_examples=10_000)


def effort(part: float) -> settings:
    """A part of the profile's examples, at least one."""
    return settings(
        max_examples=max(1, round(settings().max_examples * part)),
        derandomize=settings.get_current_profile_name() != LONG,
        deadline=None,
        suppress_health_check=SLOW_AND_SHARED,
    )
