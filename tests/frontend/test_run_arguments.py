from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.cli.errors import Answer, UsageError
from clustersh.frontend.run_arguments import RunOptions, read_run_options, run_parser, split
from clustersh.wire.fleet import Placement
from clustersh.wire.jobs import Command

WORDS = st.lists(st.text(min_size=1, alphabet=st.characters(blacklist_characters="\0", codec="utf-8")), min_size=1)
OPTIONS = st.lists(
    st.sampled_from(
        [("--file", "a"), ("--cwd", "-x"), ("--cwd=--",), ("--stdin",), ("--timeout", "10m"), ("--env", "--json")]
    )
)


def read(*words: str, environ: dict[str, str] | None = None) -> RunOptions:
    class Asked:
        json = False

    asked = Asked()
    asked.environ = environ or {}  # type: ignore[attr-defined]
    return read_run_options(asked, words)  # type: ignore[arg-type]


def test_contract_forms() -> None:
    assert read("ws1", "ls -la").command == Command(shell="ls -la")
    assert read("ws1", "ls", "-la").command == Command(shell="ls -la")
    assert read("ws1", "--", "ls", "-la").command == Command(argv=("ls", "-la"))
    assert read("--", "ws1", "ls", "-la").command == Command(argv=("ls", "-la"))
    options = read("--file", "hello", "ws1", "--timeout", "10m", "cat", "--timeout", "hello", "--", "x")
    assert (options.target, options.files, options.timeout_s) == ("ws1", ("hello",), 600.0)
    assert options.command == Command(shell="cat --timeout hello -- x")
    assert read("ws1", "--timeout=0", "x").timeout_s == 0
    assert read("ws1", "--cwd", "-odd", "x").cwd == "-odd"


@pytest.mark.parametrize("words", [("-x", "web01"), ("-xweb01",), ("-x=web01",), ("--exclude", "web01")])
def test_short_options_and_their_values(words: tuple[str, ...]) -> None:
    options = read(*words, "all", "-ojson", "x", "-x", "y")
    assert (options.fleet.exclude, options.fleet.layout, options.command) == ("web01", "json", Command(shell="x -x y"))


@given(OPTIONS, OPTIONS, WORDS)
def test_everything_after_the_first_word_is_the_commands(
    before: list[tuple[str, ...]], between: list[tuple[str, ...]], words: list[str]
) -> None:
    first = "w" + words[0]  # a first word that begins with a dash needs `--`
    given_words = [*_flat(before), "ws1", *_flat(between), first, *words[1:]]
    taken = split(run_parser(), given_words)
    assert (taken.target, taken.words, taken.vector) == ("ws1", (first, *words[1:]), False)
    assert len(taken.options) == len(before) + len(between)


@given(OPTIONS, WORDS)
def test_after_two_dashes_all_is_an_argument_vector(options: list[tuple[str, ...]], words: list[str]) -> None:
    taken = split(run_parser(), [*_flat(options), "ws1", "--", *words])
    assert (taken.target, taken.words, taken.vector) == ("ws1", tuple(words), True)


def _flat(options: list[tuple[str, ...]]) -> list[str]:
    return [word for option in options for word in option]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "which machine"),
        (("ws1",), "no command was given"),
        (("ws1", "--tiemout", "3s", "x"), "no option --tiemout"),
        (("ws1", "--timeout", "3", "x"), "write it like"),
        (("ws1", "--timeout"), "--timeout"),
        (("--script", "a", "ws1", "x"), "--script is the command"),
        (("--script", "-", "--stdin", "ws1"), "both"),
        (("--env", "MISSING", "ws1", "x"), "no such variable"),
        (("--full", "--limit", "3", "ws1", "x"), "--full is without a limit"),
        (("--detach", "--stdin", "ws1", "x"), "--detach"),
        (("--key", "a b", "ws1", "x"), "printable ASCII"),
        (("ws1", "a\udc80"), "UTF-8"),
        (("ws1", ""), "command is empty"),
        (("ws1", " ", ""), "command is empty"),
        (("--file", "", "ws1", "x"), "need a path"),
        (("--script", "", "ws1"), "need a path"),
        (("--env", "=x", "ws1", "x"), "no name"),
        (("ws1", "x" * (2 << 20)), "at most 1 MiB"),
    ],
)
def test_mistakes_are_usage_errors(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        read(*words)
    assert caught.value.status == 125


def test_a_mistyped_option_names_the_close_one() -> None:
    with pytest.raises(UsageError) as caught:
        read("ws1", "--tiemout", "3s", "x")
    assert "did you mean --timeout or --idle-timeout?" in caught.value.hints


def test_help_has_examples() -> None:
    with pytest.raises(Answer, match="examples:\n  clustersh run ws1"):
        read("--help")
    assert read("ws1", "ls", "--help").command == Command(shell="ls --help")


def test_wait_comes_from_the_environment_unless_given() -> None:
    assert read("ws1", "x", environ={"CLUSTERSH_WAIT": "90s"}).wait_s == 90
    assert read("ws1", "--wait", "1s", "x", environ={"CLUSTERSH_WAIT": "90s"}).wait_s == 1
    assert read("ws1", "x", environ={"CLUSTERSH_WAIT": ""}).wait_s is None
    with pytest.raises(UsageError, match="CLUSTERSH_WAIT"):
        read("ws1", "x", environ={"CLUSTERSH_WAIT": "soon"})


def test_paths_are_not_touched_while_reading(tmp_path: Path) -> None:
    assert read("--file", str(tmp_path / "missing"), "ws1", "x").files == (str(tmp_path / "missing"),)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), None),
        (("--least-loaded",), Placement(raw=True)),
        (("--pick", "3"), Placement(pick=3)),
        (("--placement", "mine"), Placement("mine", raw=True)),
        (("--placement=mine", "--pick=2"), Placement("mine", 2)),
        (("--least-loaded", "--placement", "least-loaded"), Placement(raw=True)),
    ],
    ids=repr,
)
def test_how_machines_are_chosen(words: tuple[str, ...], expected: Placement | None) -> None:
    options = read(*words, "all", "x")
    assert options.fleet.placement == expected
    assert options.raw == bool(expected and expected.raw)
    assert not options.dry_run
    assert read(*words, "--dry-run", "all", "x").dry_run


def test_least_loaded_is_no_other_policy() -> None:
    with pytest.raises(UsageError, match="--least-loaded is a placement too"):
        read("--least-loaded", "--placement", "mine", "all", "x")
