"""The plain parts of the fleet's form."""

from __future__ import annotations

import os

import pytest
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

from clustersh.frontend.many.diff import MAX_LINES, unified
from clustersh.frontend.many.names import counted, natural, node_set
from clustersh.frontend.many.shares import fair_share


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ((), ""),
        (("ws1",), "ws1"),
        (("b", "a"), "a,b"),
        (("web10", "web9", "web2"), "web[2,9-10]"),
        (("web01", "web03", "web02", "db1"), "db1,web[01-03]"),
        (("rack1-node2.lan", "rack1-node1.lan"), "rack1-node[1-2].lan"),
        (("1", "01", "2"), "[1-2,01]"),
    ],
)
def test_node_sets(names: tuple[str, ...], folded: str) -> None:
    assert node_set(names) == folded
    assert set(NodeSet(folded, resolver=RESOLVER_NOGROUP)) == set(names)


def test_many_names_with_several_numbers_are_folded_at_once() -> None:
    names = [f"ip-10-{a}-{b}-{c}" for a in range(4) for b in range(0, 250, 7) for c in range(0, 250, 11)]
    assert set(NodeSet(node_set(names), resolver=RESOLVER_NOGROUP)) == set(names)
    assert counted(["a1", "a2"]) == "a[1-2] (2)" and counted(["a1"]) == "a1"


def test_natural_order() -> None:
    assert sorted(["w10", "w9", "w1", "a", "w09"], key=natural) == ["a", "w1", "w09", "w9", "w10"]


@pytest.mark.parametrize(
    ("sizes", "limit", "share"),
    [
        ([], 10, 10),
        ([3, 4], 10, 10),
        ([3, 40], 10, 7),
        ([1, 40, 40], 11, 5),
        ([9, 9, 9], 2, 0),
        ([50], 10, 10),
        ([4, 4], 7, 3),
    ],
)
def test_fair_shares(sizes: list[int], limit: int, share: int) -> None:
    assert fair_share(sizes, limit) == share
    assert sum(min(size, share) for size in sizes) <= limit


def test_a_share_hides_nothing_that_fits() -> None:
    assert fair_share([100, 5], 105) >= 100


def test_diff_of_what_has_no_last_newline() -> None:
    assert unified(b"a\nb", b"a\nc\n", ("x", "y")) == (
        b"--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of output\n+c\n"
    )
    assert unified(b"a\r\xff\n", b"a\r\xfe\n", ("x", "y")).count(b"\n") == 5


def test_diff_says_where_it_can_not_compare() -> None:
    assert unified(b"\0" + os.urandom(9), b"text\n", ("x", "y")) == b"binary output of 5 bytes, the others' are 10\n"
    assert b"too many to compare" in unified(b"a\n" * (MAX_LINES + 1), b"b\n", ("x", "y"))
