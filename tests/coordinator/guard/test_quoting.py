"""However a command is written, wrapped and quoted, it is the same command; and no text at all makes the guard fail."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustersh.coordinator.guard import Guard
from clustersh.wire.jobs import BlobRef, Command

from .tables import BASH, POWERSHELL

GUARD = Guard()
LINUX = "linux/amd64"
SCRIPT = Command(script=BlobRef("0" * 64, 1, "x"))


def rules(text: str) -> set[str]:
    return {finding.rule for finding in GUARD.judge(Command(shell=text), None, LINUX)}


def ansi(word: str) -> str:
    return "$'" + "".join(f"\\x{ord(char):02x}" for char in word) + "'"


def split_in_two(word: str) -> str:
    return f"'{word[:1]}'\"{word[1:]}\"" if len(word) > 1 else f"'{word}'"


QUOTES = {
    "none": lambda word: word,
    "single": lambda word: f"'{word}'",
    "double": lambda word: f'"{word}"',
    "backslashes": lambda word: "".join(f"\\{char}" for char in word),
    "ansi": ansi,
    "mixed": split_in_two,
    "empty": lambda word: f"''{word}\"\"",
    "substitution": lambda word: f"$(echo {word})",
    "backquotes": lambda word: f"`printf %s {word}`",
}
PREFIXES = (
    *("{}", "sudo {}", "sudo -u root -E -- {}", "env -i A=b {}", "nice -n 5 {}", "nohup {}", "timeout -k 1 5 {}"),
    *("exec {}", "busybox {}", "setsid {}", "stdbuf -oL {}", "command {}"),
)
"""What may stand before a simple command."""
WRAPPERS = (
    *("{}", "( {} )", "{{ {}; }}", "true && {}", "false || {}", "ls; {}", "echo x | {}", "if true; then {}; fi"),
    *("for i in 1; do {}; done", "while :; do {}; done", "case a in *) {};; esac", "f() {{ {}; }}; f", "x=$({})"),
    *("echo $({})", 'echo "a $({}) b"', "cat <({})", "{} > /dev/null 2>&1", "! {}", "{} &", "time {}"),
    "cat <<'EOF' | bash\n{}\nEOF\n",
)
"""What may stand around a simple command or a shell that is given a text."""
SHELLS = (
    "bash -c {}",
    "sudo sh -ec {}",
    "eval {}",
    "su - root -c {}",
    "ssh -p 22 root@host {}",
    "echo {} | sh",
    "trap {} EXIT",
)
HARMFUL = {
    "remove-root": ["rm", "-rf", "/"],
    "remove-system": ["rm", "-r", "-f", "/etc"],
    "disk-format": ["mkfs.ext4", "-F", "/dev/sda1"],
    "disk-write": ["dd", "if=/dev/zero", "of=/dev/sda"],
    "permissions": ["chmod", "-R", "777", "/"],
    "power": ["systemctl", "reboot"],
}


def wrapped(wrapper: str, text: str) -> str:
    """Return *text* within *wrapper*: a here-document ends with a word that is not in it."""
    return wrapper.replace("EOF", f"END{len(text)}").format(text)


@st.composite
def commands(draw: st.DrawFn) -> tuple[str, str]:
    """A rule, and a command that breaks it."""
    rule, words = draw(st.sampled_from(sorted(HARMFUL.items())))
    text = " ".join(draw(st.sampled_from(sorted(QUOTES.items())))[1](word) for word in words)
    for _ in range(draw(st.integers(0, 2))):
        text = draw(st.sampled_from(PREFIXES)).format(text)
    text = wrapped(draw(st.sampled_from(WRAPPERS)), text)
    for _ in range(draw(st.integers(0, 2))):
        text = draw(st.sampled_from(SHELLS)).format(shlex.quote(text))
        text = wrapped(draw(st.sampled_from(WRAPPERS)), text)
    return rule, text


@settings(max_examples=400, deadline=None)
@given(commands())
def test_a_harmful_command_is_caught_however_it_is_written(command: tuple[str, str]) -> None:
    rule, text = command
    assert rule in rules(text)


@settings(max_examples=100, deadline=None)
@given(st.permutations(["-r", "-f", "--one-file-system", "/"]), st.sampled_from(["rm", "/bin/rm", "\\rm"]))
def test_the_order_of_options_does_not_matter(words: list[str], program: str) -> None:
    assert rules(" ".join([program, *words])) == {"remove-root"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["/", "/.", "/./", "//", "/../", "/tmp/../", "/*"]), min_size=1, max_size=4))
def test_however_the_root_is_written_it_is_the_root(parts: list[str]) -> None:
    path = "".join(parts)
    if "*" not in path[:-1]:
        assert rules(f"rm -rf {path}") == {"remove-root"}


SHOWS = (
    *(
        "echo {}",
        "printf '%s\\n' {}",
        "grep -r {} /var/log",
        "git commit -m {}",
        "git log --grep {}",
        "logger {}",
        "wall {}",
    ),
    *(
        "man {}",
        "apropos {}",
        "awk {} file",
        "sed {} file",
        "jq {} file",
        "rg {}",
        "touch {}",
        "mail -s {} admin",
        "# {}",
    ),
    *(
        "x={}",
        "test x = {}",
        "[[ $x == {} ]]",
        "cat > notes <<'EOF'\n{}\nEOF\n",
        "echo {} > notes.txt",
        "echo {} | tee notes",
    ),
    *(
        "python3 -c {}",
        "psql -c {}",
        "docker run --name {} nginx",
        "kubectl annotate pod x note={}",
        "f() {{ echo {}; }}; f",
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([row.command for row in BASH if row.rules]), st.sampled_from(SHOWS))
def test_words_that_are_only_shown_are_harmless(command: str, shown: str) -> None:
    quoted = shlex.quote(command)
    if "#" in shown or "EOF" in shown:
        quoted = command.replace("\n", " ").replace("EOF", "END")
    assert rules(shown.format(quoted)) == set()


PIECES = st.sampled_from(
    [row.command for row in [*BASH, *POWERSHELL]]
    + list("\"'`$(){}[]<>|&;\\\n #~*?!=%@^")
    + [
        "$(",
        "<<EOF",
        "EOF",
        "${",
        "((",
        "]]",
        "then",
        "fi",
        "do",
        "done",
        "case",
        "esac",
        "function",
        "<(",
        "@'",
        "'@",
        "\ue000",
        "\ue001",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=12), st.sampled_from([LINUX, "windows/amd64", ""]))
def test_no_text_makes_the_guard_fail(pieces: list[str], platform: str) -> None:
    text = "".join(pieces).replace("\0", "")
    if text:
        found = GUARD.judge(Command(shell=text), None, platform)
        assert all(len(finding.where) <= 120 and (finding.where.isprintable()) for finding in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([LINUX, "windows/amd64", ""]))
def test_no_script_makes_the_guard_fail(content: bytes, platform: str) -> None:
    GUARD.judge(SCRIPT, content, platform)
    GUARD.judge(SCRIPT, b"#!/bin/sh\n" + content, platform)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "sudo",
                "rm",
                "-rf",
                "/",
                "bash",
                "-c",
                "xargs",
                "find",
                "-exec",
                ";",
                "{}",
                "env",
                "-S",
                "cmd",
                "/c",
                "iex",
                "curl",
                "http://x",
                "-o",
                "dd",
            ]
        )
        | st.text(),
        min_size=1,
    ),
    st.sampled_from([LINUX, "windows/amd64", ""]),
)
def test_no_argument_vector_makes_the_guard_fail(words: list[str], platform: str) -> None:
    GUARD.judge(Command(argv=tuple(word.replace("\0", "") for word in words)), None, platform)


@pytest.mark.parametrize("quote", QUOTES)
@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_and_each_quote(quote: str, shell: str) -> None:
    text = " ".join(QUOTES[quote](word) for word in HARMFUL["remove-root"])
    assert "remove-root" in rules(shell.format(shlex.quote(text)))


@pytest.mark.parametrize("wrapper", [*PREFIXES, *WRAPPERS, "A=b {}"])
def test_each_wrapper(wrapper: str) -> None:
    assert "remove-root" in rules(wrapper.format("rm -rf /"))
    assert rules(wrapper.format("rm -rf ./x")) == set()
