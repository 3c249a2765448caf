"""Durations, sizes and times as people write and read them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.wire import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        (" 10M ", 600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 h", "1x", "1h30", "1e3s", "inf", "nan", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["367d", "9" * 400 + "s", "366d1ms"])
def test_too_long_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        units.parse_duration(text)


@given(st.integers(min_value=1, max_value=365 * 86400))
def test_a_shown_duration_reads_back_to_within_its_smallest_unit(seconds: int) -> None:
    shown = units.format_duration(seconds)
    back = units.parse_duration(shown)
    assert 0 <= seconds - back < (1 if seconds < 3600 else 60 if seconds < 86400 else 86400)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (-1, "0.0s"), (0.42, "0.4s"), (12, "12s"), (80, "1m20s"), (7500, "2h5m"), (3600, "1h"), (3601, "1h")],
)
def test_shown_durations(seconds: float, shown: str) -> None:
    assert units.format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(300, "5 minutes"), (60, "1 minute"), (7200, "2 hours"), (90, "90 seconds"), (1, "1 second"), (0.5, "0.5s")],
)
def test_timeouts_are_shown_in_whole_words(seconds: float, shown: str) -> None:
    assert units.format_timeout(seconds) == shown


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("128KiB", 131072),
        ("128k", 131072),
        ("4M", 4 << 20),
        ("1GB", 10**9),
        ("1.5GB", 1_500_000_000),
        ("7b", 7),
        ("1 TiB", 1 << 40),
        ("9007199254740993", 9007199254740993),  # more than a float holds
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "k", "1e3", "1PB", "0x10", "1 2", "٣", "9" * 5000])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        units.parse_size(text)


def test_a_size_that_no_file_can_have() -> None:
    with pytest.raises(ValueError, match="too large"):
        units.parse_size("9999999TiB")


@given(st.integers(min_value=0, max_value=10**15))
def test_a_shown_size_is_near(count: int) -> None:
    assert units.parse_size(units.format_size(count)) == pytest.approx(count, rel=0.06, abs=1)


@given(st.text(max_size=30))
def test_hostile_text_raises_nothing_but_value_error(text: str) -> None:
    for parse in (units.parse_duration, units.parse_size, units.parse_timestamp):
        with contextlib.suppress(ValueError):
            parse(text)


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_times_round_trip_to_the_millisecond(milliseconds: int) -> None:
    text = units.timestamp(milliseconds / 1000)
    assert text.endswith("Z")
    assert math.isclose(units.parse_timestamp(text), milliseconds / 1000, abs_tol=0.001)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        units.parse_timestamp("2026-11-20T10:31:07")
