from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clustersh.cli.tables import render_table
from clustersh.cli.text import display_width, printable, shortened


@given(st.text())
def test_printable_is_one_line_that_steers_nothing(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and shown.splitlines() in ([], [shown])
    assert printable(shown) == shown


def test_what_printable_shows() -> None:
    assert printable("a\x1b[31mb\nc\u202e\udc80é漢") == "a\\x1b[31mb\\nc\\u202e\\udc80é漢"


@given(st.text(st.characters(categories=("L", "N", "P", "S", "M"))), st.integers(1, 30))
def test_shortened_fits(text: str, width: int) -> None:
    assert display_width(shortened(text, width)) <= width
    if display_width(text) <= width:
        assert shortened(text, width) == text


def test_the_contracts_table() -> None:
    rows = [("joshua-ws1", "linux/amd64", "online"), ("joshua-mba", "darwin/arm64", "offline (last seen 2h ago)")]
    assert render_table(("name", "platform", "status"), rows) == (
        "name       | platform     | status\n"
        "===========|==============|===========================\n"
        "joshua-ws1 | linux/amd64  | online\n"
        "joshua-mba | darwin/arm64 | offline (last seen 2h ago)\n"
    )


def test_wide_characters_line_up() -> None:
    lines = render_table(("a", "b"), [("漢字", "x"), ("abc", "y")]).splitlines()
    assert lines[2:] == ["漢字 | x", "abc  | y"]


def test_the_widest_column_gives_way_on_a_terminal() -> None:
    rows = [("c41f9a02", "2026-11-20 10:31:07", "x" * 300, "completed after 1m20s")]
    lines = render_table(("uuid", "time", "command", "status"), rows, 80).splitlines()
    assert max(map(len, lines)) <= 80 and "c41f9a02 | 2026-11-20 10:31:07 | xx" in lines[2] and "x…" in lines[2]
    assert "x" * 300 in render_table(("uuid", "time", "command", "status"), rows)


def test_no_rows() -> None:
    assert render_table(("a", "b"), []) == "a | b\n==|==\n"


def test_a_narrow_terminal_keeps_the_first_column_and_the_lines() -> None:
    row = ("c41f9a02", "2026-11-20 10:31:07", "make all", "completed after 1m20s", "joshua-ws1")
    table = render_table(("uuid", "time", "command", "status", "machine"), [row], 40)
    assert max(map(len, table.splitlines())) <= 40
    assert table.splitlines()[2].startswith("c41f9a02 | ")
