from __future__ import annotations

from typing import cast

import pytest

from clustersh.cli.commands import Command, prepare_command
from clustersh.cli.errors import Answer, UsageError
from clustersh.cli.invocation import Invocation
from clustersh.cli.parser import Parser, reads


class _Asked:
    """As much of an Invocation as arguments need."""

    program = "tool"

    def __init__(self, argv: tuple[str, ...]) -> None:
        self.argv = argv
        self.json = False


def asked(*argv: str) -> Invocation:
    return cast(Invocation, _Asked(argv))


def parser() -> Parser:
    made = Parser("tool do", "Do it.", ("tool do --size 3",))
    made.add_argument("--size", type=reads(int))
    made.add_argument("--form", choices=("text", "json"))
    made.add_argument("what", nargs="?")
    return made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--siez", "3"], "tool do has no option --siez"),
        (["--size"], "--size: expected one argument"),
        (["--size", "x"], "invalid literal"),
        (["--si", "3"], "tool do has no option --si"),
        (["a", "b"], "too many arguments: b"),
        (["--form", "txet"], "--form takes text or json, not 'txet'"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parser().read(asked(), words)
    assert caught.value.status == 125
    assert caught.value.hints[-1] == "tool do --help"


@pytest.mark.parametrize(
    ("choices", "word", "message", "meant"),
    [
        (("add", "remove"), "ad", "tool do takes add or remove, not 'ad'", ("did you mean add?",)),
        (("stop",), "kill", "tool do takes stop, not 'kill'", ()),
    ],
)
def test_a_word_that_is_none_of_those(
    choices: tuple[str, ...], word: str, message: str, meant: tuple[str, ...]
) -> None:
    made = Parser("tool do", "Do it.", ())
    made.add_argument("verb", nargs="?", choices=choices)
    assert made.read(asked(), [choices[0]]).verb == choices[0]
    assert made.read(asked(), []).verb is None
    with pytest.raises(UsageError) as caught:
        made.read(asked(), [word])
    assert (str(caught.value), caught.value.hints) == (message, (*meant, "tool do --help"))


def test_options_may_stand_among_the_words() -> None:
    made = Parser("tool do", "Do it.", ())
    made.add_argument("--size", type=reads(int))
    made.add_argument("words", nargs="+")
    for words in (["a", "--size", "3", "b"], ["--size", "3", "a", "b"], ["a", "b", "--size=3"]):
        given = made.read(asked(), words)
        assert (given.words, given.size) == (["a", "b"], 3)
    assert made.read(asked(), ["a", "--", "--size"]).words == ["a", "--size"]


def test_json_is_known_before_a_mistake_is_told() -> None:
    invocation = asked()
    with pytest.raises(UsageError):
        parser().read(invocation, ["--json", "--nope"])
    assert invocation.json


def test_help_is_text_with_examples() -> None:
    with pytest.raises(Answer) as caught:
        parser().read(asked(), ["--help"])
    assert "examples:\n  tool do --size 3\n" in caught.value.text and "\x1b" not in caught.value.text


def test_the_table_of_commands() -> None:
    table = {"status": Command("no.such.module:prepare", "say how it is"), "stop": Command("no.such:prepare", "stop")}
    bare = Command("clustersh.cli.commands:prepare_command", "")

    def choose(*words: str) -> None:
        prepare_command(asked(*words), table, bare, "A tool.")

    with pytest.raises(Answer, match="status  say how it is"):
        choose("--help")
    with pytest.raises(Answer, match=r"tool \d"):
        choose("--version")
    with pytest.raises(UsageError, match="no command 'statsu'") as caught:
        choose("statsu")
    assert caught.value.hints[0] == "did you mean tool status?"
    with pytest.raises(ModuleNotFoundError):
        choose("help", "stop")
