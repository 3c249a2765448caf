"""What programs do with their words: run other ones, or something that a rule is about."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from . import disks, downloads, power, removal
from .case import Case
from .options import parse
from .state import State
from .values import FETCHED, UNKNOWN, base_name, bounded
from .wrappers import WRAPPERS, inner_words

RunText = Callable[[str, State, str], str]
SHELLS = frozenset(["sh", "bash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "rbash", "posh", "yash", "fish"])
INTERPRETERS = frozenset(["perl", "ruby", "node", "php", "lua", "tclsh", "osascript", "pwsh", "powershell", "deno", "bun"])
_PASSING = frozenset(["cat", "tee", "tac", "sort", "uniq", "pv", "sponge", "head", "tail", "dos2unix", "buffer", "mbuffer"])
_SSH_VALUES = "BbcDEeFIiJLlmOoPpQRSWw"
_MOST_ITEMS = 64

Check = Callable[[Case, str, list[str], State, str], None]
_CHECKS: dict[str, Check] = {**removal.CHECKS, **disks.CHECKS, **power.CHECKS}


class Programs:
    """Runs argument vectors for one *case*; *run_text* runs a text in a shell of the given state."""

    def __init__(self, case: Case, run_text: RunText) -> None:
        self._case = case
        self._run_text = run_text

    def run(self, words: list[str], state: State, stdin: str) -> str:
        """Run *words*, which read *stdin*; return what they print."""
        self._case.spend()
        if not words:
            return ""
        with self._case.deeper():
            name = base_name(words[0])
            special = getattr(self, f"_run_{name.replace('-', '_')}", None) if name.isascii() else None
            if special is not None:
                printed: str = special(words[1:], state, stdin)
                return printed
            if words[0] == ".":
                return self._run_source(words[1:], state, stdin)
            if name in SHELLS:
                return self._shell(name, words[1:], state, stdin)
            if name in INTERPRETERS or name.startswith("python"):
                return self._interpreter(words, state, stdin)
            if name in WRAPPERS:
                return self._wrapper(name, words[1:], state, stdin)
            return self._plain(name, words, state, stdin)

    def _plain(self, name: str, words: list[str], state: State, stdin: str) -> str:
        if FETCHED in words[0]:
            self._case.report("plain-http", words)
        if UNKNOWN in words[0]:
            return self.run(words[1:], state, stdin) if words[0] == UNKNOWN else UNKNOWN
        content = state.read(words[0]) if "/" in words[0] else UNKNOWN
        if content != UNKNOWN:
            return self._file(words, content, state)
        check = _CHECKS.get(name) or _CHECKS.get(name.partition(".")[0] + ".*")
        if check is not None:
            check(self._case, name, words[1:], state, stdin)
        if name in downloads.PROGRAMS:
            return downloads.fetch(name, words[1:], state)
        if name in _PASSING:
            return self._passing(words, state, stdin)
        return FETCHED if FETCHED in stdin else UNKNOWN

    def _passing(self, words: list[str], state: State, stdin: str) -> str:
        """Programs that hand on what they read, from stdin or from files."""
        operands = parse(words[1:]).operands
        if base_name(words[0]) == "tee":
            for path in operands:
                state.write(path, stdin)
            return stdin
        known = [stdin if path == "-" else state.read(path) for path in operands] or [stdin]
        return bounded("".join(known))

    def _wrapper(self, name: str, words: Sequence[str], state: State, stdin: str) -> str:
        options, rest = inner_words(name, words)
        if name == "sudo" and options.has("s", "i", "shell", "login"):
            return self._run_text(" ".join(rest), state.copy(), stdin) if rest else self._read(stdin, state)
        if name == "env" and options.has("S", "split-string"):
            rest = _split(options.given.get("S") or options.given.get("split-string", "")) + rest
        if name == "watch" and not options.has("x", "exec"):
            return self._run_text(" ".join(rest), state.copy(), stdin)
        return self.run(rest, state, stdin)

    # Shells, and what hands a text to one

    def _shell(self, name: str, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "oO", frozenset(["rcfile", "init-file"]), until=True)
        inner = state.copy()
        inner.functions, inner.running = {}, state.running
        if options.has("c"):
            inner.arguments = options.operands[2:]
            return self._run_text(options.operands[0], inner, stdin) if options.operands else ""
        if options.operands and not options.has("s"):
            inner.arguments = options.operands[1:]
            path = options.operands[0]
            return self._read(stdin if path in ("-", "/dev/stdin", "/proc/self/fd/0") else state.read(path), inner, [name, *words])
        return self._read(stdin, inner, [name, *words])

    def _read(self, text: str, state: State, words: Sequence[str] = ()) -> str:
        """Run *text*, which a shell reads."""
        return "" if text == UNKNOWN else self._run_text(text, state, UNKNOWN)

    def _file(self, words: list[str], content: str, state: State) -> str:
        """Run the file words[0], whose *content* is known."""
        first = content.partition("\n")[0]
        if first.startswith("#!") and not set(first.replace("/", " ").split()) & SHELLS:
            if FETCHED in content:
                self._case.report("plain-http", words)
            return UNKNOWN
        inner = state.copy()
        inner.arguments = words[1:]
        return self._run_text(content, inner, UNKNOWN)

    def _interpreter(self, words: list[str], state: State, stdin: str) -> str:
        """Other languages: only where they get what they run from is looked at."""
        options = parse(words[1:], "cmeEIMX", until=True)
        if options.has("c", "m", "e", "E", "command", "Command"):
            source = options.given.get("c") or options.given.get("e") or ""
        elif options.operands and options.operands[0] != "-":
            source = state.read(options.operands[0])
        else:
            source = stdin
        if FETCHED in source:
            self._case.report("plain-http", words)
        return UNKNOWN

    def _run_eval(self, words: list[str], state: State, stdin: str) -> str:
        return self._run_text(" ".join(words), state, stdin)

    def _run_source(self, words: list[str], state: State, stdin: str) -> str:
        content = state.read(words[0]) if words else UNKNOWN
        if content == UNKNOWN:
            state.forget()
            return UNKNOWN
        return self._run_text(content, state, stdin)

    def _run_trap(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, until=True)
        if len(options.operands) > 1 and not options.has("p", "l"):
            self._run_text(options.operands[0], state.copy(), UNKNOWN)
        return ""

    def _run_su(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "cgGswC", frozenset("command group supp-group shell session-command user".split()))
        text = next((options.given[name] for name in ("c", "command", "session-command") if name in options.given), None)
        return self._run_text(text, state.copy(), stdin) if text is not None else self._read(stdin, state.copy())

    def _run_runuser(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "ucgGs", frozenset("user command group supp-group shell session-command".split()), until=True)
        if options.has("u", "user"):
            return self.run(options.operands, state, stdin)
        return self._run_su(words, state, stdin)

    def _run_script(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "cEIoOTBm", frozenset("command log-in log-out log-io".split()))
        text = options.given.get("c") or options.given.get("command")
        return self._run_text(text, state.copy(), stdin) if text else ""

    def _run_ssh(self, words: list[str], state: State, stdin: str) -> str:
        operands = parse(words, _SSH_VALUES, until=True).operands
        inner = State()
        return self._run_text(" ".join(operands[1:]), inner, stdin) if len(operands) > 1 else self._read(stdin, inner)

    def _run_at(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "qft")
        if options.has("l", "r", "d", "c"):
            return UNKNOWN
        return self._read(state.read(options.given["f"]) if options.has("f") else stdin, state.copy())

    _run_batch = _run_at

    def _run_flock(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "wE", frozenset("timeout wait conflict-exit-code".split()), until=True)
        rest = options.operands[1:]
        if rest[:1] in (["-c"], ["--command"]):
            return self._run_text(" ".join(rest[1:2]), state.copy(), stdin)
        return self.run(rest, state, stdin)

    def _run_ip(self, words: list[str], state: State, stdin: str) -> str:
        for at, word in enumerate(words):
            if word == "exec":
                return self.run(words[at + 2 :], state, stdin)
        return UNKNOWN

    def _run_screen(self, words: list[str], state: State, stdin: str) -> str:
        return self.run(parse(words, "cehpSstTX", until=True).operands, state, stdin)

    def _run_tmux(self, words: list[str], state: State, stdin: str) -> str:
        if not words or words[0] not in ("new", "new-session", "new-window", "neww", "split-window", "splitw", "run-shell", "run"):
            return ""
        return self._run_text(" ".join(parse(words[1:], "cefFnstxyl", until=True).operands), state.copy(), stdin)

    # Programs that run another one for each of many things

    def _run_xargs(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "aEILlnPsd", frozenset("arg-file delimiter max-args max-procs replace max-lines".split()), until=True)
        text = state.read(options.given["a"]) if options.has("a") else stdin
        items = [UNKNOWN] if text == UNKNOWN else _split(text)[:_MOST_ITEMS]
        mark = options.given.get("I") or options.given.get("replace") or ""
        if not mark:
            return self.run([*options.operands, *items], state, UNKNOWN)
        for item in items:
            self.run([word.replace(mark, item) for word in options.operands], state, UNKNOWN)
        return UNKNOWN

    def _run_parallel(self, words: list[str], state: State, stdin: str) -> str:
        options = parse(words, "jSnNaCdEILlPsXm", frozenset("jobs sshlogin arg-file delay joblog timeout results".split()), until=True)
        command, _, given = " ".join(options.operands).partition(" ::: ")
        items = given.split() if given else ([UNKNOWN] if stdin == UNKNOWN else stdin.split("\n"))
        for item in items[:_MOST_ITEMS]:
            line = command.replace("{}", item) if "{}" in command else f"{command} {item}"
            self._run_text(line, state.copy(), UNKNOWN)
        return UNKNOWN

    def _run_find(self, words: list[str], state: State, stdin: str) -> str:
        for command, inner_of in removal.check_find(self._case, words, state):
            self.run([word.replace("{}", inner_of) for word in command], state, stdin)
        return UNKNOWN

    # What a shell does itself

    def _run_echo(self, words: list[str], state: State, stdin: str) -> str:
        escapes = False
        while words and words[0] in ("-n", "-e", "-E", "-ne", "-en"):
            escapes, words = escapes or "e" in words[0], words[1:]
        text = " ".join(words)
        return bounded(text.replace("\\n", "\n") if escapes else text) + "\n"

    def _run_printf(self, words: list[str], state: State, stdin: str) -> str:
        if words[:1] == ["-v"]:
            state.set(words[1] if len(words) > 1 else "", UNKNOWN)
            return ""
        if words[:1] == ["--"]:
            words = words[1:]
        if not words:
            return ""
        text, values = words[0].replace("\\n", "\n").replace("\\t", "\t"), words[1:]
        pieces = text.split("%s")
        if "%" in "".join(pieces).replace("%%", "") or (len(pieces) == 1 and values):
            return bounded(" ".join([text, *values]))
        turns = max(1, -(-len(values) // max(1, len(pieces) - 1)))
        if turns > _MOST_ITEMS:
            return UNKNOWN
        rest = iter(values)
        return bounded("".join(piece + next(rest, "") for _ in range(turns) for piece in [*pieces[:-1]]) + pieces[-1])

    def _run_cd(self, words: list[str], state: State, stdin: str) -> str:
        operands = [word for word in words if word not in ("-L", "-P", "--")]
        from .values import HOME, normal

        state.folder = HOME if not operands else UNKNOWN if operands[0] == "-" else normal(operands[0], state.folder)
        return ""

    _run_pushd = _run_cd

    def _run_read(self, words: list[str], state: State, stdin: str) -> str:
        for name in parse(words, "adinNptu").operands or ["REPLY"]:
            state.set(name, FETCHED if FETCHED in stdin else UNKNOWN)
        return ""

    _run_mapfile = _run_readarray = _run_getopts = _run_read

    def _run_set(self, words: list[str], state: State, stdin: str) -> str:
        if "--" in words:
            state.arguments = words[words.index("--") + 1 :]
        return ""

    def _run_shift(self, words: list[str], state: State, stdin: str) -> str:
        if state.arguments:
            state.arguments = state.arguments[1:]
        return ""

    def _run_exit(self, words: list[str], state: State, stdin: str) -> str:
        return ""


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
