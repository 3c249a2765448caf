"""Programs that run another one for each of many things: ``xargs``, ``parallel``, ``find``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .calls import MOST_ITEMS, Call, Program
from .options import Options, parse
from .paths import root_of
from .removal import RECURSIVE, REMOVES
from .values import LISTED, UNKNOWN, ansi_quoted, base_name, split_words

_RUNS = ("-exec", "-execdir", "-ok", "-okdir")
_NARROWS_NOTHING = frozenset(
    [
        *("-delete", "-depth", "-d", "-xdev", "-mount", "-print", "-print0", "-ls", "-follow", "-true", "-prune"),
        *("-a", "-and", "-o", "-or", "-not", "-ignore_readdir_race", "-mindepth", "-maxdepth", "-type", "-regextype"),
        *_RUNS,
    ]
)
_NAMES = ("-name", "-iname", "-path", "-ipath", "-wholename", "-iwholename", "-regex", "-iregex")


def _xargs(call: Call) -> str:
    options = parse(call.words, "aEILlnPsd", "arg-file delimiter max-args max-procs replace max-lines", until=True)
    text = call.state.read(options.given["a"]) if options.has("a") else call.stdin
    mark = options.value("I", "replace") or ("{}" if options.has("replace", "i") else "")
    found = [UNKNOWN] if text == UNKNOWN else _items(text, options, lines=bool(mark))[:MOST_ITEMS]
    items = [item[:-1] if item.endswith(LISTED) else item for item in found]
    if not mark:
        return call.shell.run_words([*options.operands, *items], call.state, UNKNOWN)
    for item in items:
        words = [word.replace(mark, item) for word in options.operands]
        call.shell.run_words(words, call.state, UNKNOWN)
    return UNKNOWN


def _items(text: str, options: Options, *, lines: bool) -> list[str]:
    """Return what ``xargs`` makes of *text*."""
    if options.has("0", "null"):
        return text.split("\0")
    if delimiter := ansi_quoted(options.value("d", "delimiter")):
        return text.split(delimiter)
    return [line.strip() for line in text.splitlines()] if lines else split_words(text)


def _parallel(call: Call) -> str:
    options = parse(call.words, "jSnNaCdEILlPsXm", "jobs sshlogin arg-file delay joblog timeout results", until=True)
    words = options.operands
    at = words.index(":::") if ":::" in words else len(words)
    command, given = " ".join(words[:at]), words[at + 1 :]
    items = given or ([UNKNOWN] if call.stdin == UNKNOWN else call.stdin.splitlines())
    for item in items[:MOST_ITEMS]:
        filled = command.replace("{1}", item).replace("{}", item)
        call.run_in_shell(filled if filled != command else f"{command} {item}")
    return UNKNOWN


def _find(call: Call) -> str:
    """Without a test that leaves most files out, what is done to each file is done to all."""
    starts, tests = _parts(call.words)
    commands, narrowed = list(_commands(tests)), _is_narrowed(tests)
    for start in starts:
        found = root_of(start, call.state.folder)
        if found and "-delete" in tests and not narrowed:
            call.report(REMOVES[found])
        for command in commands:
            _each_file(call, command, UNKNOWN if narrowed else start)
    silent = {"-delete", *_RUNS} & {*tests} and not {"-print", "-print0"} & {*tests}
    end = "\0" if "-print0" in tests else "\n"
    return UNKNOWN if narrowed or silent else "".join(f"{start.rstrip('/')}/*{LISTED}{end}" for start in starts)


def _each_file(call: Call, command: Sequence[str], path: str) -> None:
    words = [word.replace("{}", path) for word in command]
    if words and base_name(words[0]) in RECURSIVE and path != UNKNOWN:
        words.insert(1, "-R")
    call.shell.run_words(words, call.state, UNKNOWN)


def _parts(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return where ``find`` starts, and its tests and actions."""
    rest = [word for word in words if word not in ("-H", "-L", "-P")]
    at = next((number for number, word in enumerate(rest) if word[:1] in ("-", "(", "!")), len(rest))
    return rest[:at] or ["."], rest[at:]


def _is_narrowed(tests: Sequence[str]) -> bool:
    inside, before = False, ""
    for word in tests:
        if inside:
            inside = word not in (";", "+")
        elif word in _RUNS:
            inside = True
        elif word.startswith("-") and not (word in _NARROWS_NOTHING or (before in ("!", "-not") and word in _NAMES)):
            return True
        before = word
    return False


def _commands(tests: Sequence[str]) -> Iterator[list[str]]:
    command: list[str] | None = None
    for word in tests:
        if command is None:
            command = [] if word in _RUNS else None
        elif word == ";" or (word == "+" and command[-1:] == ["{}"]):
            yield command
            command = None
        else:
            command.append(word)
    if command:
        yield command


PROGRAMS: dict[str, Program] = {"xargs": _xargs, "parallel": _parallel, "find": _find}
