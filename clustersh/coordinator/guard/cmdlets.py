"""What Windows' programs and PowerShell's cmdlets do with their words."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from .downloads import is_plain
from .removal import REMOVES
from .state import State
from .values import FETCHED, UNKNOWN, bounded
from .windows_calls import Call, Shell
from .windows_paths import place_of

ALIASES = {
    **dict.fromkeys(("rm", "del", "erase", "rd", "ri", "rmdir"), "remove-item"),
    **dict.fromkeys(("iwr", "irm", "curl", "wget", "invoke-restmethod", "start-bitstransfer"), "invoke-webrequest"),
    **dict.fromkeys(("gci", "ls", "dir"), "get-childitem"),
    **dict.fromkeys(("echo", "write"), "write-output"),
    **dict.fromkeys(("pwsh", "powershell"), "powershell"),
    **dict.fromkeys(("saps", "start"), "start-process"),
    **dict.fromkeys(("gc", "cat", "type"), "get-content"),
    **dict.fromkeys(("sc", "set-content", "ac", "add-content"), "out-file"),
    **dict.fromkeys(("cd", "sl", "chdir"), "set-location"),
    "pushd": "push-location",
    "iex": "invoke-expression",
    "clc": "clear-content",
}
_WITH_VALUE = (
    "-executionpolicy",
    "-ep",
    "-ex",
    "-exec",
    "-windowstyle",
    "-w",
    "-version",
    "-inputformat",
    "-outputformat",
)
_START_OPTIONS = ("-filepath", "-verb", "runas", "-wait")
_SWITCH = re.compile(r"[/-]([a-z]+)(:.*)?", re.IGNORECASE)


def call(shell: Shell, words: Sequence[str], state: State, stdin: str) -> str:
    """Judge the call *words*; return what it prints."""
    shell.case.spend()
    if not words or not words[0].strip():
        return stdin
    first = words[0]
    content = state.files.get(_file_key(first), UNKNOWN)
    if FETCHED in first or FETCHED in content:
        shell.case.report_fetched(words)
        return UNKNOWN
    if content != UNKNOWN:
        return shell.run_text(content, state.copy())
    name = re.split(r"[\\/]", first.strip("\"'"))[-1].lower()
    name = re.sub(r"\.(exe|com|cmd|bat)$", "", name)
    name = ALIASES.get(name, name)
    known = Call(shell, name, first, list(words[1:]), state, stdin)
    program = COMMANDS.get(name)
    if program is None or known.only_tries or "/?" in known.words or "-?" in known.words:
        return known.fetched()
    with shell.case.deeper():
        return program(known)


def _file_key(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].lower()


def _remove(call: Call) -> str:
    recursive = call.has("recurse") or "/s" in [word.lower() for word in call.words] or call.has("rf", "fr")
    narrowed = call.has("include", "filter", "exclude")
    paths = call.operands if recursive else []
    if not call.operands and UNKNOWN not in call.stdin:
        paths = call.stdin.splitlines()
    for path in paths if not narrowed else []:
        if not re.fullmatch(r"/[a-z]", path) and (found := place_of(path, call.state.folder)):
            call.report(REMOVES[found])
            break
    return ""


def _go(call: Call) -> str:
    """``Set-Location``: where relative paths begin from now on."""
    target = call.value("path", "literalpath") or (call.operands or [UNKNOWN])[0]
    call.state.folder = target if re.match(r"[A-Za-z]:[\\/]", target) else UNKNOWN
    return ""


def _robocopy(call: Call) -> str:
    """``/MIR`` and ``/PURGE`` remove what the source doesn't have."""
    folders = [word for word in call.words if not word.startswith("/")]
    switches = {word.lower() for word in call.words}
    removes = bool({"/mir", "/purge"} & switches) and "/l" not in switches
    if removes and len(folders) > 1 and place_of(folders[1]) in ("root", "system"):
        call.report("remove-system")
    return UNKNOWN


def _children(call: Call) -> str:
    """``Get-ChildItem`` hands on the folder's content, where nothing narrows it."""
    narrowed = call.has("include", "filter", "exclude", "name") or len(call.operands) != 1
    return UNKNOWN if narrowed else call.operands[0]


def _format_always(call: Call) -> str:
    call.report("disk-format")
    return UNKNOWN


def _format(call: Call) -> str:
    if any(re.fullmatch(r"[A-Za-z]:\\?", word) for word in call.words):
        call.report("disk-format")
    return UNKNOWN


def _diskpart(call: Call) -> str:
    """A script that isn't known counts as one that changes something: it has hardly another use."""
    path = next((after for word, after in pairwise(call.words) if word.lower() == "/s"), "")
    text = call.state.files.get(_file_key(path), "clean") if path else call.stdin
    if re.search(r"\b(clean|format|delete|create|convert|remove)\b", text, re.IGNORECASE):
        call.report("disk-format")
    return UNKNOWN


def _power_always(call: Call) -> str:
    call.report("power")
    return UNKNOWN


def _shutdown(call: Call) -> str:
    switches = {found[1].lower() for word in call.words if (found := _SWITCH.fullmatch(word))}
    if switches & {"s", "r", "g", "sg", "p", "h", "hybrid"} and "a" not in switches:
        call.report("power")
    return UNKNOWN


def _permissions(call: Call) -> str:
    """``icacls`` and ``takeown``, of everything below."""
    switches = {word.lower() for word in call.words}
    changes = "/t" in switches if call.name == "icacls" else "/r" in switches
    changes = changes and not (call.name == "icacls" and {"/save", "/findsid", "/verify"} & switches)
    if changes and any(place_of(word) in ("root", "system") for word in call.words if not word.startswith("/")):
        call.report("permissions")
    return UNKNOWN


def _fetch(call: Call) -> str:
    plain = [word for word in call.words if "://" in word and is_plain(word)]
    if not plain:
        first = call.value("uri") or (call.operands or [""])[0]
        plain = [first] if "://" not in first and "." in first and is_plain(first) else []
    if not plain:
        return UNKNOWN
    call.shell.case.fetched = " ".join([call.typed, *call.words])
    target = call.value("outfile", "output", "destination") or call.value("o")
    if target or (call.typed.lower() == "start-bitstransfer" and (target := (["", *call.operands, ""])[2])):
        call.state.files[_file_key(target)] = FETCHED
        return ""
    return FETCHED


def _evaluate(call: Call) -> str:
    text = call.value("command") or " ".join(call.operands) or call.stdin
    return UNKNOWN if text == UNKNOWN else call.shell.run_text(text, call.state)


def _powershell(call: Call) -> str:
    lowered = [word.lower() for word in call.words]
    for at, word in enumerate(lowered):
        if (word.startswith(("-e", "/e")) and "encodedcommand".startswith(word[1:])) or word in ("-ec", "-enc"):
            return call.shell.run_text(_decoded("".join(call.words[at + 1 : at + 2])), call.state.copy())
        if word.startswith(("-c", "/c")) and "command".startswith(word[1:]):
            text = " ".join(call.words[at + 1 :])
            return call.shell.run_text(call.stdin if text == "-" else text, call.state.copy())
        if word.startswith(("-f", "/f")) and "file".startswith(word[1:]):
            return call.shell.run_words(call.words[at + 1 :], call.state.copy())
    rest = _without_options(call.words)
    text = " ".join(rest) or call.stdin
    return UNKNOWN if text == UNKNOWN else call.shell.run_text(text, call.state.copy())


def _without_options(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0].lower() in _WITH_VALUE else rest[1:]
    return rest


def _decoded(text: str) -> str:
    try:
        return bounded(base64.b64decode(text, validate=True).decode("utf-16-le", "replace"))
    except (binascii.Error, ValueError):
        return UNKNOWN


def _cmd(call: Call) -> str:
    at = next((number for number, word in enumerate(call.words) if word.lower() in ("/c", "/k", "/r")), None)
    return UNKNOWN if at is None else call.shell.shells.cmd(" ".join(call.words[at + 1 :]), call.state)


def _bash(call: Call) -> str:
    """``bash -c TEXT``, ``wsl PROGRAM ...`` and ``ssh HOST TEXT``."""
    words = call.words
    if call.name in ("bash", "sh"):
        text = next((after for word, after in pairwise(words) if re.fullmatch(r"-\w*c", word)), "")
    elif call.name == "wsl":
        start = next((n for n, word in enumerate(words) if word in ("--", "-e", "--exec")), -1) + 1
        text = " ".join(words[start:])
    else:
        text = " ".join(call.operands[1:])
    return call.shell.shells.bash(text, State()) if text else UNKNOWN


def _start(call: Call) -> str:
    program = call.value("filepath") or (call.operands or [""])[0]
    values = [word for word in call.words if word != program and word.lower() not in _START_OPTIONS]
    words = [part for word in values for part in word.split() if not "-argumentlist".startswith(part.lower())]
    return call.shell.run_words([program, *words], call.state)


def _inner(call: Call) -> str:
    return call.shell.run_words(call.words, call.state, call.stdin)


def _output(call: Call) -> str:
    return bounded("\n".join(call.operands)) if call.operands else call.stdin


def _read_file(call: Call) -> str:
    return call.state.files.get(_file_key(call.operands[0]), UNKNOWN) if call.operands else UNKNOWN


def _write_file(call: Call) -> str:
    path, *values = [*call.operands, ""]
    text = call.value("value") or next((value for value in values if value), call.stdin)
    call.state.files[_file_key(path)] = bounded(text)
    return ""


DANGEROUS: dict[str, Callable[[Call], str]] = {
    "remove-item": _remove,
    **dict.fromkeys(("format-volume", "clear-disk", "initialize-disk", "remove-partition"), _format_always),
    "format": _format,
    "diskpart": _diskpart,
    **dict.fromkeys(("stop-computer", "restart-computer"), _power_always),
    "shutdown": _shutdown,
    **dict.fromkeys(("icacls", "takeown"), _permissions),
    "invoke-webrequest": _fetch,
}
COMMANDS: dict[str, Callable[[Call], str]] = {
    **DANGEROUS,
    "get-childitem": _children,
    **dict.fromkeys(("set-location", "push-location"), _go),
    "robocopy": _robocopy,
    "invoke-expression": _evaluate,
    "powershell": _powershell,
    "cmd": _cmd,
    **dict.fromkeys(("bash", "sh", "wsl", "ssh"), _bash),
    "start-process": _start,
    **dict.fromkeys(("sudo", "gsudo"), _inner),
    "write-output": _output,
    "get-content": _read_file,
    "out-file": _write_file,
}
