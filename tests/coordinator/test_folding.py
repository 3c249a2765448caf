"""How an answer's room is shared among outputs, and which of them are the same."""

from __future__ import annotations

import hashlib

import hypothesis.strategies as st
from hypothesis import given

from clustersh.coordinator.folding import fair_shares, twins
from clustersh.coordinator.heads import Head
from clustersh.coordinator.printed import Printed
from clustersh.wire.jobs import HEAD_LIMIT, State
from clustersh.wire.rest import Job

NOTHING_PRINTED = hashlib.sha256(b"").hexdigest()
SIZES = st.lists(st.integers(0, 1 << 20), max_size=50)


@given(SIZES, st.integers(0, 1 << 22))
def test_shares_are_max_min_fair(sizes: list[int], limit: int) -> None:
    shares = fair_shares(sizes, limit)
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    assert sum(shares) == min(limit, sum(sizes)), "nothing is wasted, and nothing is over the limit"
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    if cut:
        assert max(cut) - min(cut) <= 1, "those that are cut get equal parts"
        assert max(shares) <= max(cut) + 1, "nobody has more than those that are cut"


@given(SIZES, st.integers(0, 1 << 22), st.randoms())
def test_shares_do_not_depend_on_the_order(sizes: list[int], limit: int, random: object) -> None:
    before = sorted(fair_shares(sizes, limit))
    shuffled = list(sizes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(fair_shares(shuffled, limit)) == before


def one(machine: str, text: bytes, *, head: Head | None = None, sums: tuple[str, str] | None = None) -> Printed:
    size = len(text)
    job = Job("uuid", machine, "ann", "true", "", State.COMPLETED, "now", output_bytes=size, stdout_bytes=size)
    return Printed(job, f"id of {machine}", sums or (hashlib.sha256(text).hexdigest(), NOTHING_PRINTED), head)


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"x" * 100]), max_size=30))
def test_equal_outputs_go_by_the_first_of_them(texts: list[bytes]) -> None:
    found = twins([one(f"m{number}", text) for number, text in enumerate(texts)])
    for place, text in enumerate(texts):
        assert found[place] == (texts.index(text) if text else place), "what printed nothing goes by itself"


def test_sums_of_more_than_came_with_the_result_count_only_where_the_heads_are_the_same() -> None:
    text = b"x" * (HEAD_LIMIT + 1)
    head = Head(text[:HEAD_LIMIT])
    lie = one("b", text, head=Head(b"evil"))
    assert twins([one("a", text, head=head), lie, one("c", text, head=head)]) == [0, 1, 0]
    assert twins([one("a", text), one("b", text)]) == [0, 1], "nothing is known of them but the machines' own words"


def test_unknown_sums_are_equal_to_nothing() -> None:
    assert twins([one("a", b"x", sums=("", "")), one("b", b"x", sums=("", ""))]) == [0, 1]
