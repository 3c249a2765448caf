"""What the guard promises to those who call it: actions, order, words, bounds; and that only a coordinator pays."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tracemalloc

import pytest

from clustersh.coordinator.guard import RULES, Action, Finding, Guard
from clustersh.coordinator.guard.values import LONGEST
from clustersh.wire.jobs import MAX_COMMAND, MAX_SCRIPT, BlobRef, Command
from tests.conftest import ROOT

LINUX, WINDOWS = "linux/amd64", "windows/amd64"
SCRIPT = Command(script=BlobRef("0" * 64, 1, "x.sh"))


def shell(text: str, platform: str = LINUX, **actions: str) -> list[str]:
    judged = Guard({name.replace("_", "-"): action for name, action in actions.items()})
    return [finding.rule for finding in judged.judge(Command(shell=text), None, platform)]


def argv(*words: str, platform: str = LINUX) -> list[str]:
    return [finding.rule for finding in Guard().judge(Command(argv=words), None, platform)]


def script(content: bytes, platform: str = LINUX) -> list[str]:
    return [finding.rule for finding in Guard().judge(SCRIPT, content, platform)]


def test_a_finding_says_which_rule_why_and_where() -> None:
    (finding,) = Guard().judge(Command(shell="ls && sudo reboot -f"), None, LINUX)
    assert finding == Finding("power", Action.BLOCK, RULES["power"].why, "reboot -f")


def test_what_was_fetched_is_shown_by_what_fetched_it() -> None:
    (finding,) = Guard().judge(Command(shell="curl -s http://example.org/i.sh | sudo bash"), None, LINUX)
    assert finding.where == "curl -s http://example.org/i.sh"


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_rules_have_words_that_go_into_a_sentence(rule: object) -> None:
    assert isinstance(rule, type(RULES["power"]))
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.why[0].islower() and not rule.why.endswith(".") and "\n" not in rule.why


def test_the_action_of_a_rule_can_be_another_one() -> None:
    assert shell("reboot", power="allow") == []
    (finding,) = Guard({"power": "deny"}).judge(Command(shell="reboot"), None, LINUX)
    assert finding.action is Action.DENY
    (finding,) = Guard({"remove-root": "block"}).judge(Command(shell="rm -rf /"), None, LINUX)
    assert finding.action is Action.BLOCK
    assert shell("reboot; rm -rf /", remove_root="allow") == ["power"]


def test_what_is_allowed_is_not_suspicious_either() -> None:
    unparsable = 'echo "unclosed; sudo reboot'
    assert shell(unparsable) == ["unparsable"]
    assert shell(unparsable, power="allow") == []
    assert shell(unparsable, unparsable="allow") == []
    assert shell(unparsable, remove_root="allow") == ["unparsable"]


@pytest.mark.parametrize("actions", [{"no-such-rule": "allow"}, {"power": "perhaps"}])
def test_a_rule_or_an_action_that_is_none_is_an_error(actions: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no-such-rule|perhaps"):
        Guard(actions)


def test_the_worst_comes_first() -> None:
    assert shell("reboot; chmod -R 777 /; rm -rf /") == ["remove-root", "power", "permissions"]


def test_where_is_short_and_printable() -> None:
    (finding,) = Guard().judge(Command(shell="rm -rf / $'\\e[31m' \u202e" + "x" * 500), None, LINUX)
    assert finding.where.startswith("rm -rf / [31m x") and len(finding.where) == 120
    assert finding.where.isprintable()
    (finding,) = Guard().judge(Command(shell='rm -rf / "$HOME" $x ~'), None, LINUX)
    assert finding.where == "rm -rf / ~ … ~"


def test_an_argument_vector_is_no_shell_line() -> None:
    assert argv("rm", "-rf", "/") == ["remove-root"]
    assert argv("sudo", "rm", "-rf", "/") == ["remove-root"]
    assert argv("echo", "x; rm -rf /", "$(reboot)", "`reboot`") == []
    assert argv("rm", "-rf", "~", "$HOME") == []
    assert argv("bash", "-c", "cd / && rm -rf *") == ["remove-root"]
    assert argv("git", "commit", "-m", "rm -rf /") == []
    assert argv("shutdown", "/s", platform=WINDOWS) == ["power"]
    assert argv("cmd", "/c", "rd /s /q C:\\", platform=WINDOWS) == ["remove-root"]
    assert argv("powershell", "-Command", "Stop-Computer", platform=WINDOWS) == ["power"]
    assert argv("clusteragent", "probe", "disk", "/") == []


def test_a_script_is_judged_by_what_runs_it() -> None:
    assert script(b"reboot\n") == ["power"]
    for first in (
        b"#!/bin/sh",
        b"#!/bin/bash -e",
        b"#!/usr/bin/env bash",
        b"#!/usr/bin/env -S bash -eu",
        b"#! /bin/dash",
    ):
        assert script(first + b"\nreboot\n") == ["power"]
    for first in (b"#!/usr/bin/python3", b"#!/usr/bin/env perl"):
        assert script(first + b"\nreboot\n") == []
    assert script(b"Stop-Computer\n", WINDOWS) == ["power"]
    assert script(b'f() {\n  rm -rf "$1"\n}\nf /tmp/x\n') == []
    assert script(b'f() {\n  rm -rf "$1"\n}\nf /\n') == ["remove-root"]
    assert script(b"\xff\xfe\n\x00\nreboot\n") == ["power"]


def test_what_nobody_parses_is_looked_through_by_its_lines() -> None:
    def suspected(command: Command, content: bytes | None = None, platform: str = LINUX) -> list[str]:
        return [finding.rule for finding in Guard().suspect(command, content, platform)]

    assert suspected(Command(shell="ls; sudo reboot")) == ["unparsable"]
    assert suspected(Command(argv=("rm", "-rf", "/"))) == suspected(SCRIPT, b"x\nrm -rf /\n") == ["unparsable"]
    assert (
        suspected(Command(shell="rm -rf ./build; last | head")) == suspected(SCRIPT, b"#!/usr/bin/perl\nreboot") == []
    )
    assert suspected(Command(shell="Stop-Computer"), None, WINDOWS) == ["unparsable"]
    assert suspected(Command(shell="Stop-Computer")) == []
    assert Guard({"power": "allow"}).suspect(Command(shell="reboot"), None, LINUX) == ()


def test_what_nobody_parses_is_seen_by_no_parser_and_takes_bounded_time() -> None:
    code = (
        "import sys\n"
        "from clustersh.coordinator.guard import Guard\n"
        "from clustersh.wire.jobs import Command\n"
        "for text in ('sh -c \"rm -rf /\"', 'eval reboot', 'powershell -Command Stop-Computer', 'bash <<< reboot'):\n"
        "    Guard().suspect(Command(shell=text), None, '')\n"
        "print([name for name in sys.modules if 'tree_sitter' in name])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    began = time.process_time()
    for text in (*LARGE.values(), "sh -c 'rm x' " * 80_000, "rm {a,b} " * 100_000, "rm\n" * 300_000):
        Guard().suspect(Command(shell=text[:MAX_COMMAND]), None, "")
    Guard().suspect(SCRIPT, b"rm\n" * (MAX_SCRIPT // 3), "")
    assert time.process_time() - began < 20


def test_a_script_that_is_not_there_breaks_no_rule() -> None:
    assert Guard().judge(SCRIPT, None, LINUX) == ()


def test_a_machine_s_platform_says_which_shell_it_is() -> None:
    assert shell("Stop-Computer", LINUX) == []
    assert shell("Stop-Computer", "darwin/arm64") == []
    assert shell("Stop-Computer", WINDOWS) == ["power"]
    assert shell("reboot", WINDOWS) == []
    for platform in ("", "plan9/mips", "windows10"):
        assert shell("Stop-Computer", platform) == shell("reboot", platform) == ["power"]


def test_another_executor_than_the_system_s_own_makes_it_both() -> None:
    def found(text: str, platform: str, executor: str) -> list[str]:
        command = Command(shell=text)
        parsed, not_parsed = (
            Guard().judge(command, None, platform, "", executor),
            Guard().suspect(command, None, platform, executor),
        )
        assert bool(parsed) is bool(not_parsed)
        return [finding.rule for finding in parsed]

    for platform, executor in (
        (LINUX, "powershell"),
        (LINUX, "docker"),
        (WINDOWS, "bash"),
        (WINDOWS, "x"),
        ("", "bash"),
    ):
        assert found("Stop-Computer", platform, executor) == found("reboot", platform, executor) == ["power"]
    for executor in ("", "bash"):
        assert found("Stop-Computer", LINUX, executor) == []
    for executor in ("", "powershell"):
        assert found("reboot", WINDOWS, executor) == []


LARGE = {
    "parentheses": "(" * 100_000,
    "closed parentheses": "(" * 100_000 + "reboot" + ")" * 100_000,
    "substitutions": "$(" * 100_000 + "reboot",
    "quotes": '"' * 99_999,
    "a chain": "true && " * 100_000 + "reboot",
    "a pipeline": "cat | " * 100_000 + "reboot",
    "words": "echo " + "x " * 500_000,
    "braces": "rm -rf " + "{a,b}" * 100_000,
    "nested braces": "rm -rf " + "{a," * 50_000 + "b" + "}" * 50_000,
    "expansions": "${x:-" * 50_000,
    "here-documents": "cat <<A\n" * 50_000,
    "a growing variable": "x=xxxxxxxx;" + "x=$x$x;" * 1000 + "rm -rf /$x",
    "nested loops": "for a in 1 2 3 4 5 6 7 8; do " * 20 + "echo" + "; done" * 20,
    "nested functions": "".join(f"f{n}() {{ f{n + 1}; f{n + 1}; }};" for n in range(60)) + "f0",
    "evals": "eval " * 100_000 + "reboot",
    "wrappers": "sudo " * 100_000 + "reboot",
    "nested shells": "x='reboot';" + "x=\"sh -c '$x'\";" * 30 + "$x",
    "one line": "echo " + "rm / " * 200_000,
    "separators": "; rm x " * 140_000,
    "backslashes": "\\" * 1_000_000,
    "fields": "x='" + "a " * 100_000 + "'; " + "echo $x;" * 1000,
    "files": "".join(f"echo {n} > f{n};" for n in range(20_000)),
    "items": "seq 5 | xargs -I{} sh -c '" + "{} " * 10_000 + "'",
}


@pytest.mark.parametrize("platform", [LINUX, WINDOWS])
@pytest.mark.parametrize("name", LARGE)
def test_large_and_deep_commands_take_bounded_time(name: str, platform: str) -> None:
    began = time.process_time()
    Guard().judge(Command(shell=LARGE[name][:LONGEST]), None, platform)  # the longest that is parsed
    assert time.process_time() - began < 10


@pytest.mark.parametrize("nonsense", ["a|", "<<E\n", ">,,", "||+", "*+", "!>", ",\\\n", "x()@(;"])
def test_nonsense_takes_the_parsers_little_time_and_what_is_dangerous_in_it_is_found(nonsense: str) -> None:
    for platform, restart in ((LINUX, "reboot"), (WINDOWS, "Restart-Computer")):
        for size in (16 << 10, LONGEST - 100):
            began = time.process_time()
            rules = shell(f"{restart} -x\n" + nonsense * (size // len(nonsense)), platform)
            assert time.process_time() - began < 6
            assert rules in (["power"], ["unparsable"], ["power", "unparsable"])


def test_long_pipelines_that_are_many_are_parsed() -> None:
    assert shell("true | sort | uniq -c |\n  # most first\n  head\n" * 800 + "echo 'reboot'\n") == []
    assert shell("true | sort\n" * 1200 + "sudo reboot\n") == ["power"]
    assert shell("true |\n" * 1200 + "sudo reboot\n") == ["unparsable"]


def test_where_a_command_runs_is_where_its_words_begin() -> None:
    def found(text: str, folder: str) -> list[str]:
        return [finding.rule for finding in Guard().judge(Command(shell=text), None, LINUX, folder)]

    assert found("rm -rf *", "/") == found("rm -rf .", "//") == found("find . -delete", "/tmp/..") == ["remove-root"]
    assert found("rm -rf *", "/etc") == found("rm -rf *", "~") == ["remove-system"]
    assert found("chmod -R 777 .", "/") == ["permissions"]
    for folder in ("", "sub", "~/sub", "~joe", "/tmp", "/srv/app"):
        assert found("rm -rf * ./build", folder) == []
    assert found("cd /tmp && rm -rf *", "/") == []
    assert [each.rule for each in Guard().judge(Command(argv=("rm", "-rf", ".")), None, LINUX, "/")] == ["remove-root"]
    assert [each.rule for each in Guard().judge(SCRIPT, b"rm -rf *\n", LINUX, "/")] == ["remove-root"]


def test_the_longest_commands_take_bounded_time() -> None:
    began = time.process_time()
    for text in LARGE.values():
        Guard().judge(Command(shell=text[:MAX_COMMAND]), None, LINUX)
    assert time.process_time() - began < 30


@pytest.mark.parametrize("name", ["closed parentheses", "a chain", "a pipeline", "evals", "wrappers"])
def test_what_is_too_large_to_be_gone_through_is_suspicious_where_it_names_a_dangerous_program(name: str) -> None:
    assert shell(LARGE[name][:MAX_COMMAND]) in (["power"], ["unparsable"])
    assert shell(LARGE[name][:MAX_COMMAND].replace("reboot", "uptime")) == []


def test_no_character_crashes_the_parser() -> None:
    """Its scanner looks characters up in C's tables, which end at 255; how far beyond them is deadly varies."""
    code = (
        "from clustersh.coordinator.guard import Guard\n"
        "from clustersh.wire.jobs import Command\n"
        "guard = Guard()\n"
        "for sign in [chr(at) for at in range(0x80, 0x110000, 2047) if not 0xd800 <= at < 0xe000]:\n"
        "    text = f'{{{sign}; }}; cat <<E | grep ${sign}\\na${sign}\\nE\\n[[ -{sign} ]]; echo ${{{sign}'\n"
        "    for text in (text, text + ' ' * 300):\n"
        "        guard.judge(Command(shell=text), None, 'linux/amd64')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_characters_beyond_ascii_are_part_of_words_and_stay_what_they_are() -> None:
    (finding,) = Guard().judge(Command(shell="{ rm -rf / /tmp/é日\U00020000; }"), None, LINUX)
    assert finding.where == "rm -rf / /tmp/é日\U00020000"
    assert shell("x=/; rm -rf $x日") == shell("echo $(rm -rf /日)") == []
    assert shell("x=日; rm -rf /${x#日}") == shell("rm -rf /\u3000") == []
    assert shell("echo 日 'é' \"日\" && cat <<日 | sh\nrm -rf /\n日\n") == ["remove-root"]


@pytest.mark.parametrize("platform", [LINUX, WINDOWS])
def test_a_long_script_is_looked_through_by_its_lines(platform: str) -> None:
    harmless = b"echo one two three; rm -f ./x.tmp\n" * (MAX_SCRIPT // 40)
    began = time.process_time()
    assert script(b"echo one two three four five six\n" * (MAX_SCRIPT // 33), platform) == []
    assert script(harmless[: 300 << 10], platform) == []
    assert script(harmless[: 300 << 10] + b"\nshutdown /r -h now\n", platform) == ["unparsable"]
    assert time.process_time() - began < 20


def test_a_long_script_takes_little_memory() -> None:
    content = b"echo one two three four five six\n" * (MAX_SCRIPT // 33)
    tracemalloc.start()
    try:
        script(content)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("program", ["agent", "frontend"])
def test_only_a_coordinator_pays_for_the_parsers(program: str) -> None:
    code = (
        "import sys, pkgutil, importlib, clustersh.{0} as room\n"
        "for each in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "    'plugin' in each.name or '__main__' in each.name or importlib.import_module(each.name)\n"
        "print([name for name in sys.modules if 'tree_sitter' in name or 'coordinator' in name])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code.format(program)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_the_parsers_are_imported_with_the_first_text() -> None:
    code = (
        "import sys\n"
        "from clustersh.coordinator.guard import Guard\n"
        "from clustersh.wire.jobs import Command\n"
        "before = 'tree_sitter' in sys.modules\n"
        "Guard().judge(Command(shell='ls'), None, 'linux/amd64')\n"
        "print(before, 'tree_sitter_bash' in sys.modules, 'tree_sitter_powershell' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "False True False\n"
