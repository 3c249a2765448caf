"""The windows of readers: they fill a long way, and not much more; what they take beyond their own is shared."""

from __future__ import annotations

import pytest

from clustersh.coordinator.read_ahead import FEWEST, MOST, SHARED, Allowance, Window

PIECE_BYTES = 256 << 10


def read(window: Window, pieces: int, way_s: float, rate: float) -> int:
    """Read *pieces* over a way of *way_s* there and back that carries *rate* bytes a second; return the most asked."""
    most = 0
    for _ in range(pieces):
        # All that is under way has to come through before the piece that is asked for now.
        window.adapt(max(way_s, window.size * PIECE_BYTES / rate), None)
        most = max(most, window.size)
    return most


def test_a_long_way_is_filled_within_a_few_turns() -> None:
    window = Window(Allowance())
    assert read(window, MOST - FEWEST, way_s=0.2, rate=1e9) == MOST
    read(window, 100, way_s=0.2, rate=1e9)
    assert window.size == MOST


@pytest.mark.parametrize(("way_s", "rate"), [(0.01, 1e6), (0.001, 2e8), (0.2, 5e6)], ids=["slow", "near", "far"])
def test_no_more_is_under_way_than_twice_what_the_way_holds(way_s: float, rate: float) -> None:
    most = read(Window(Allowance()), 1000, way_s, rate)
    assert FEWEST <= most <= 2 * max(FEWEST, way_s * rate / PIECE_BYTES) + 1


def test_a_way_that_becomes_crowded_gets_less() -> None:
    window = Window(Allowance())
    read(window, 100, way_s=0.2, rate=1e9)
    window.adapt(0.7, None)  # neither quick enough to grow, nor crowded
    assert window.size == MOST
    for _ in range(2 * MOST):
        window.adapt(0.9, None)
    assert window.size == FEWEST


def test_a_reader_that_is_slower_than_the_way_gets_less() -> None:
    window = Window(Allowance())
    read(window, 100, way_s=0.2, rate=1e9)
    window.adapt(0.2, 0.1)  # it lay there for less than a way: that happens to a reader that keeps up
    assert window.size == MOST
    for _ in range(2 * MOST):
        window.adapt(0.2, 0.3)
    assert window.size == FEWEST


def test_readers_share_what_goes_beyond_the_fewest() -> None:
    allowance = Allowance()
    windows = [Window(allowance) for _ in range(2 * SHARED // (MOST - FEWEST))]
    for window in windows:
        read(window, 100, way_s=0.2, rate=1e9)
    assert sum(window.size - FEWEST for window in windows) == SHARED
    assert windows[-1].size == FEWEST
    windows[0].close()
    assert allowance.left == MOST - FEWEST
    assert read(windows[-1], 100, way_s=0.2, rate=1e9) == MOST
    for window in windows:
        window.close()
    assert allowance.left == SHARED
