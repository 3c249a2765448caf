from __future__ import annotations

import pytest

from clustersh.cli.commands import Command, prepare_command
from clustersh.cli.errors import Answer, UsageError
from clustersh.cli.parser import Parser, reads


class Asked:
    """As much of an Invocation as arguments need."""

    program = "tool"

    def __init__(self, *argv: str) -> None:
        self.argv = argv
        self.json = False


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
        parser().read(Asked(), words)  # type: ignore[arg-type]
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
    assert made.read(Asked(), [choices[0]]).verb == choices[0]  # type: ignore[arg-type]
    assert made.read(Asked(), []).verb is None  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        made.read(Asked(), [word])  # type: ignore[arg-type]
    assert (str(caught.value), caught.value.hints) == (message, (*meant, "tool do --help"))


def test_options_may_stand_among_the_words() -> None:
    made = Parser("tool do", "Do it.", ())
    made.add_argument("--size", type=reads(int))
    made.add_argument("words", nargs="+")
    for words in (["a", "--size", "3", "b"], ["--size", "3", "a", "b"], ["a", "b", "--size=3"]):
        given = made.read(Asked(), words)  # type: ignore[arg-type]
        assert (given.words, given.size) == (["a", "b"], 3)
    assert made.read(Asked(), ["a", "--", "--size"]).words == ["a", "--size"]  # type: ignore[arg-type]


def test_json_is_known_before_a_mistake_is_told() -> None:
    asked = Asked()
    with pytest.raises(UsageError):
        parser().read(asked, ["--json", "--nope"])  # type: ignore[arg-type]
    assert asked.json


def test_help_is_text_with_examples() -> None:
    with pytest.raises(Answer) as caught:
        parser().read(Asked(), ["--help"])  # type: ignore[arg-type]
    assert "examples:\n  tool do --size 3\n" in caught.value.text and "\x1b" not in caught.value.text


def test_the_table_of_commands() -> None:
    table = {"status": Command("no.such.module:prepare", "say how it is"), "stop": Command("no.such:prepare", "stop")}
    bare = Command("clustersh.cli.commands:prepare_command", "")

    def choose(*words: str) -> None:
        prepare_command(Asked(*words), table, bare, "A tool.")  # type: ignore[arg-type]

    with pytest.raises(Answer, match="status  say how it is"):
        choose("--help")
    with pytest.raises(Answer, match=r"tool \d"):
        choose("--version")
    with pytest.raises(UsageError, match="no command 'statsu'") as caught:
        choose("statsu")
    assert caught.value.hints[0] == "did you mean tool status?"
    with pytest.raises(ModuleNotFoundError):
        choose("help", "stop")
