"""Arguments: argparse, with our errors (exit status 125), whole option names, and examples in every ``--help``."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from .errors import Answer, UsageError
from .invocation import Invocation

T = TypeVar("T")
HELP_WIDTH = 100


class Parser(argparse.ArgumentParser):
    """Reads one command's arguments. *name* is as typed (``clustersh run``), *examples* are whole command lines.

    With *any_bytes* arguments needn't be UTF-8: paths, say.
    """

    def __init__(
        self, name: str, summary: str, examples: Sequence[str], *, json: bool = True, any_bytes: bool = False
    ) -> None:
        lines = "".join(f"  {example}\n" for example in examples)
        super().__init__(
            prog=name,
            description=summary,
            epilog=f"examples:\n{lines}",
            add_help=False,
            allow_abbrev=False,
            formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=HELP_WIDTH),
        )
        self.color = False  # Python 3.14 would ask the process for its terminal
        self._any_bytes = any_bytes
        self._value_options: dict[str, bool] = {}
        self.add_argument("-h", "--help", action="store_true", help="show this and exit")
        if json:
            self.add_argument("--json", action="store_true", help="print one JSON document")

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """As argparse's; remembers which options take a value."""
        action = super().add_argument(*args, **kwargs)
        for option in action.option_strings:
            self._value_options[option] = action.nargs != 0
        return action

    def takes_value(self, option: str) -> bool:
        """Whether *option* (``--timeout``) is followed by a value. Raises UsageError where there is no such option."""
        if option not in self._value_options:
            raise self._unknown([option])
        return self._value_options[option]

    def read(self, invocation: Invocation, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options in *arguments*, and note whether JSON is wanted. Raises UsageError or Answer."""
        invocation.json = "--json" in arguments and "--json" in self._value_options
        if not self._any_bytes:
            for word in arguments:
                utf8(word)
        if not {"-h", "--help"}.isdisjoint(arguments):
            raise Answer(self.format_help())
        # Options may stand among the words, but for those that come after a `--`, which it would forget.
        parse = self.parse_known_args if "--" in arguments else self.parse_known_intermixed_args
        options, unknown = parse(list(arguments))
        if unknown:
            raise self._unknown(unknown)
        return options

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, where argparse would print and exit."""
        raise UsageError(message, (f"{self.prog} --help",))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own words for this are those of its programmers.
        if action.choices is not None and value not in action.choices:
            *most, last = choices = [str(choice) for choice in action.choices]
            takes = f"{', '.join(most)} or {last}" if most else last
            name = action.option_strings[-1] if action.option_strings else self.prog
            raise UsageError(
                f"{name} takes {takes}, not {value!r}", (*_meant(str(value), choices), f"{self.prog} --help")
            )

    def _unknown(self, words: Sequence[str]) -> UsageError:
        first = words[0].partition("=")[0]
        if not first.startswith("-"):
            return UsageError(f"too many arguments: {' '.join(words)}", (f"{self.prog} --help",))
        meant = _meant(first, self._value_options)
        return UsageError(f"{self.prog} has no option {first}", (*meant, f"{self.prog} --help"))


def _meant(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the hint that names what of the *known* words is close to *word*, if anything is."""
    close = difflib.get_close_matches(word, list(known), n=2)
    return (f"did you mean {' or '.join(close)}?",) if close else ()


def add_exclude(parser: Parser) -> None:
    """Give *parser* the option that takes machines away without a shell's special characters."""
    parser.add_argument("-x", "--exclude", default="", metavar="EXPR", help="leave these machines out")


def utf8(text: str) -> str:
    """Return *text*. Raises UsageError where it stands for bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} is not UTF-8 text") from error
    return text


def reads(function: Callable[[str], T]) -> Callable[[str], T]:
    """Make *function*, which raises ValueError with a message for people, an argparse ``type``."""

    def read(text: str) -> T:
        try:
            return function(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read
