"""Stop strings against plain searching in the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.stop import StopStrings

FEW_LETTERS = st.text("ab€", max_size=30)
STOPS = st.lists(st.text("ab€", min_size=1, max_size=5), min_size=1, max_size=4)


def split(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in zip(places, places[1:], strict=False)]


def first_match(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Where the first complete stop string begins; of those complete at one place the longest."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return end - len(longest), longest
    return None


@settings(max_examples=300, deadline=None)
@given(FEW_LETTERS, STOPS, st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_any_split_gives_the_text_up_to_the_first_match(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    watcher = StopStrings(stops, include)
    shown, found = "", None
    for piece in split(text, cuts):
        new, found = watcher.push(piece)
        shown += new
        if found is not None:
            break
    expected = first_match(text, stops)
    if expected is None:
        assert found is None
        assert shown + watcher.flush() == text
    else:
        place, stop = expected
        assert found == stop
        assert shown == text[:place] + (stop if include else "")
        assert watcher.flush() == ""


def test_watches_of_the_same_strings_do_not_meddle() -> None:
    first = StopStrings(["stop"])
    assert first.push("a st") == ("a ", None)
    second = first.anew()
    assert second.push("op") == ("op", None)
    assert first.push("op") == ("", "stop")


@settings(max_examples=300, deadline=None)
@given(FEW_LETTERS, STOPS)
def test_holds_back_exactly_what_may_still_become_a_stop_string(text: str, stops: list[str]) -> None:
    watcher = StopStrings(stops)
    shown, pushed = "", ""
    for character in text:
        new, found = watcher.push(character)
        if found is not None:
            return
        shown, pushed = shown + new, pushed + character
        prefixes = [stop[:i] for stop in stops for i in range(len(stop)) if pushed.endswith(stop[:i])]
        assert pushed == shown + max(prefixes, key=len)


@settings(max_examples=300, deadline=None)
@given(FEW_LETTERS, FEW_LETTERS, STOPS)
def test_unarmed_text_passes_but_may_begin_a_match(before: str, after: str, stops: list[str]) -> None:
    watcher = StopStrings(stops)
    shown, found = watcher.push(before, armed=False)
    assert found is None
    new, found = watcher.push(after)
    shown += new
    text = before + after
    for end in range(len(before) + 1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            assert found is not None and found == max(ending, key=len)
            assert shown + found == text[:end]
            break
    else:
        assert found is None
        assert shown + watcher.flush() == text


def test_text_without_the_beginning_of_a_stop_string_is_never_held() -> None:
    watcher = StopStrings(["\n\n", "User:"])
    assert watcher.push("Hello there") == ("Hello there", None)
    assert watcher.push("\n") == ("", None)
    assert watcher.push("Us") == ("\n", None)
    assert watcher.push("e the") == ("Use the", None)


def test_the_first_complete_string_wins_and_of_several_the_longest() -> None:
    assert StopStrings(["abcd", "bc"]).push("xabcd") == ("xa", "bc")
    assert StopStrings(["bc", "abc"]).push("xabc") == ("x", "abc")


def test_no_stop_strings() -> None:
    watcher = StopStrings([])
    assert watcher.push("anything") == ("anything", None)
    assert watcher.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])


def test_a_stop_string_that_nearly_matches_everywhere() -> None:
    watcher = StopStrings(["a" * 2_000 + "b"])
    shown = [watcher.push("a")[0] for _ in range(20_000)]
    assert shown == [""] * 2_000 + ["a"] * 18_000
    assert watcher.push("b") == ("", "a" * 2_000 + "b")
