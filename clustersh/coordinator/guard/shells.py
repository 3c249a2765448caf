"""Programs that take a text and run it: shells, what hands a text to one, and other languages."""

from __future__ import annotations

from .calls import Call, Program, for_all
from .options import parse
from .state import State
from .values import FETCHED, UNKNOWN

_SHELLS = "sh bash rbash dash ash zsh ksh mksh fish"
_LANGUAGES = "python perl ruby node php"
_STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_SSH_VALUES = "BbcDEeFIiJLlmOoPpQRSWw"


def run_file(call: Call, content: str) -> str:
    """Run the file that is called, whose *content* is known, by what its first line names."""
    first = content.partition("\n")[0]
    if is_shell_script(first):
        return call.run_in_shell(content, call.words)
    if FETCHED in content:
        call.shell.case.report_fetched([call.name, *call.words])
    return UNKNOWN


def is_shell_script(first: str) -> bool:
    """Whether a script with this *first* line is run by a shell."""
    return not first.startswith("#!") or bool(set(first[2:].replace("/", " ").split()) & set(_SHELLS.split()))


def _shell(call: Call) -> str:
    words = ["-" + word[1:] if word.startswith("+") else word for word in call.words]
    options = parse(words, "oO", "rcfile init-file", until=True)
    operands = call.words[len(call.words) - len(options.operands) :]
    if options.has("c"):
        return call.run_in_shell(operands[0], operands[2:], (operands[1:2] or [UNKNOWN])[0]) if operands else ""
    if operands and not options.has("s"):
        text = call.stdin if operands[0] in _STDIN else call.state.read(operands[0])
        return call.read_in_shell(text, operands[1:])
    return call.read_in_shell(call.stdin, operands)


def _language(call: Call) -> str:
    """Of other languages nothing is parsed; only where their texts come from is looked at."""
    options = parse(call.words, "cmeErIMX", until=True)
    if options.has("c", "m", "e", "E", "r"):
        text = options.value("c", "e", "E", "r")
    elif options.operands and options.operands[0] not in _STDIN:
        text = call.state.read(options.operands[0])
    else:
        text = call.stdin
    if FETCHED in text:
        call.shell.case.report_fetched([call.name, *call.words])
    return UNKNOWN


def _powershell(call: Call) -> str:
    at = next((number for number, word in enumerate(call.words) if word.lower() in ("-command", "-c")), None)
    text = " ".join(call.words[at + 1 :]) if at is not None else "" if call.words else "-"
    return call.shell.run_powershell(call.stdin if text == "-" else text, State())


def _eval(call: Call) -> str:
    return call.shell.run_text(" ".join(call.words), call.state, call.stdin)


def _source(call: Call) -> str:
    path = call.words[0] if call.words else ""
    content = call.stdin if path in _STDIN else call.state.read(path)
    if content == UNKNOWN:
        call.state.forget()
        return UNKNOWN
    return call.shell.run_text(content, call.state, call.stdin)


def _trap(call: Call) -> str:
    options = parse(call.words, until=True)
    if len(options.operands) > 1 and not options.has("p", "l"):
        call.run_in_shell(options.operands[0])
    return ""


def _su(call: Call) -> str:
    options = parse(call.words, "cgGswC", "command group supp-group shell session-command")
    if options.has("c", "command", "session-command"):
        return call.run_in_shell(options.value("c", "command", "session-command"))
    return call.read_in_shell(call.stdin)


def _runuser(call: Call) -> str:
    options = parse(call.words, "ucgGs", "user command group supp-group shell session-command", until=True)
    return call.run(options.operands) if options.has("u", "user") else _su(call)


def _script(call: Call) -> str:
    values, names = "cEIoOTBm", "command log-in log-out log-io"
    text = parse(call.words, values, names).value("c", "command")
    return call.run_in_shell(text) if text else call.run(parse(call.words, values, names, until=True).operands[1:])


def _ssh(call: Call) -> str:
    words = parse(call.words, _SSH_VALUES, until=True).operands[1:]
    words = parse(words, _SSH_VALUES, until=True).operands  # after the host there may be options, too
    if not words and call.stdin == UNKNOWN:
        return UNKNOWN
    return call.shell.run_text(" ".join(words) or call.stdin, State(), call.stdin if words else UNKNOWN)


def _at(call: Call) -> str:
    options = parse(call.words, "qft")
    if options.has("l", "r", "d", "c"):
        return UNKNOWN
    return call.read_in_shell(call.state.read(options.given["f"]) if options.has("f") else call.stdin)


def _flock(call: Call) -> str:
    options = parse(call.words, "wE", "timeout wait conflict-exit-code", until=True)
    rest = options.operands[1:]
    if rest[:1] in (["-c"], ["--command"]):
        return call.run_in_shell(" ".join(rest[1:2]))
    return call.run(rest)


PROGRAMS: dict[str, Program] = {
    **for_all(_SHELLS, _shell),
    **for_all(_LANGUAGES, _language),
    **for_all("pwsh powershell powershell.exe", _powershell),
    "eval": _eval,
    **for_all("source .", _source),
    **for_all("at batch", _at),
    "python3.*": _language,
    "trap": _trap,
    "su": _su,
    "runuser": _runuser,
    "script": _script,
    "ssh": _ssh,
    "flock": _flock,
}
