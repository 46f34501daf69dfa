"""The storms of `benchmarks.storm` in a size for every day: nothing is lost, left over, or wrong."""

from benchmarks.storm import Sizes, in_a_storm, queue_flags
from benchmarks.storm_phases import leave_storm, queue_storm, silent_storm, stream_storm

SIZES = Sizes(queued=300, streams=100, leavers=8, silent=8, rows=112, witnesses=2)
LONGEST = 48  # tokens of an answer that somebody leaves


def test_queues_streams_leavers_and_clients_that_never_read() -> None:
    outcomes = in_a_storm(
        queue_flags(SIZES, "float32"),
        SIZES,
        [
            lambda server: queue_storm(server, SIZES.rows, SIZES.queued),
            lambda server: stream_storm(server, SIZES.streams, 24),
            lambda server: leave_storm(server, SIZES.leavers, LONGEST),
            lambda server: silent_storm(server, SIZES.silent),
        ],
    )
    assert not [fault for outcome in outcomes for fault in outcome.faults]
    figures = {outcome.phase: outcome.figures for outcome in outcomes}
    assert figures["queue"]["left in the queue"] == SIZES.queued // 4
    assert figures["streams"]["left in mid-stream"] > 0
    assert figures["leaving"]["left before the end"] > SIZES.leavers
    assert figures["witnesses"]["answers"] >= SIZES.witnesses
