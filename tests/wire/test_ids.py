"""Names, and the UUIDv7 of a run."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.wire import ids

LAST_MS = ids.MAX_MILLISECONDS


def maker_at(times: list[int], bits: int = 0) -> ids.UuidMaker:
    clock = iter(times)
    return ids.UuidMaker(lambda: next(clock), lambda _count: bits)


@given(st.lists(st.integers(min_value=-(10**13), max_value=LAST_MS - 10), min_size=2, max_size=50))
def test_uuids_rise_whatever_the_clock_does(times: list[int]) -> None:
    make = maker_at(times)
    made = [make() for _ in times]
    assert made == sorted(set(made))
    assert all(ids.is_run_uuid(uuid) for uuid in made)


@given(st.integers(min_value=0, max_value=LAST_MS))
def test_a_uuid_holds_its_time(milliseconds: int) -> None:
    uuid = maker_at([milliseconds])()
    moment = ids.uuid_time(uuid)
    assert moment.tzinfo is UTC
    assert round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) == milliseconds


def test_more_uuids_in_a_millisecond_than_the_counter_holds_still_rise() -> None:
    make = ids.UuidMaker(lambda: 1_700_000_000_000)
    made = [make() for _ in range(5000)]
    assert made == sorted(set(made))


@given(st.lists(st.integers(min_value=0, max_value=10**13), min_size=1, max_size=5), st.integers(0, 10**13))
def test_a_new_maker_goes_on_after_what_an_earlier_one_made(times: list[int], later: int) -> None:
    earlier = maker_at(times)
    last = [earlier() for _ in times][-1]
    make = maker_at([later, later])
    make.follow(last)
    made = [last, make(), make()]
    assert made == sorted(set(made))


def test_a_maker_follows_only_forwards() -> None:
    make = maker_at([2000, 1000, 1000])
    first = make()
    make.follow(maker_at([1000])())
    assert first < make() < make()


def test_a_uuid_is_version_7_and_of_the_usual_variant() -> None:
    uuid = UUID(ids.UuidMaker(lambda: 1)())
    assert uuid.version == 7
    assert uuid.variant == "specified in RFC 4122"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01992f3e",
        "6fa459ea-ee8a-4ca4-894e-db77e160355e",
        "019A0000-0000-7000-8000-000000000000",
        "{019a0000-0000-7000-8000-000000000000}",
        "019a00000000700080000000000000000",
        "019a0000-0000-7000-8000-00000000000\n",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",  # of the year 10889: it names no day's folder
        "../../../../../../etc/passwd",
    ],
)
def test_what_is_no_run_uuid(text: str) -> None:
    assert not ids.is_run_uuid(text)


@given(st.text())
def test_every_run_uuid_has_a_day(text: str) -> None:
    if ids.is_run_uuid(text):
        assert ids.uuid_time(text).year <= 9999


def test_an_ending_is_taken_whole_short_or_with_an_ellipsis() -> None:
    uuid = "01992f3e-1b2c-7def-8abc-0123c41f9a02"
    assert ids.uuid_ending(uuid) == uuid.replace("-", "")
    assert ids.uuid_ending("…c41f9a02") == ids.uuid_ending(" C41F9A02 ") == "c41f9a02"
    assert ids.short(uuid) == "c41f9a02"


@pytest.mark.parametrize("text", ["", "41f9a02", "c41f9a0g", "c41f9a02" * 5, "…", "٣٣٣٣٣٣٣٣"])
def test_a_bad_ending_says_what_to_give(text: str) -> None:
    with pytest.raises(ValueError, match="last 8 digits"):
        ids.uuid_ending(text)


@pytest.mark.parametrize(("text", "name"), [("WS1", "ws1"), (" a ", "a"), ("a.b_c-d", "a.b_c-d"), ("0" * 64, "0" * 64)])
def test_machine_names_are_folded(text: str, name: str) -> None:
    assert ids.machine_name(text) == name


@pytest.mark.parametrize("text", ["", "-a", "a-", "a b", "a/b", "..", "0" * 65, "ä", "a\n.b", "a@b", "\x1b[31m"])
def test_what_no_machine_can_be_called(text: str) -> None:
    with pytest.raises(ValueError, match="can't be a machine's name"):
        ids.machine_name(text)


def test_all_is_reserved() -> None:
    with pytest.raises(ValueError, match="reserved"):
        ids.machine_name("ALL")


@pytest.mark.parametrize(("text", "name"), [("Joshua@MBA", "joshua@mba"), ("ci", "ci")])
def test_client_names_are_folded(text: str, name: str) -> None:
    assert ids.client_name(text) == name


@pytest.mark.parametrize("text", ["", "@", "a@", "@a", "a@b@c", "a b@c"])
def test_what_no_client_can_be_called(text: str) -> None:
    with pytest.raises(ValueError, match="can't be a client's name"):
        ids.client_name(text)


@given(st.text())
def test_a_cleaned_name_is_a_name(text: str) -> None:
    cleaned = ids.clean_name(text)
    assert ids.client_name(f"{cleaned}@{cleaned}") == f"{cleaned}@{cleaned}"
    with contextlib.suppress(ValueError):
        assert ids.clean_name(ids.machine_name(text)) == ids.machine_name(text)
