"""What the documentation says of the code is so."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from clustersh import config
from clustersh.agent.enroll import Enrolled
from clustersh.agent.leave import Left
from clustersh.agent.status import Status
from clustersh.coordinator.guard import RULES, Guard
from clustersh.coordinator.policy.rulebook import check
from clustersh.coordinator.wheelhouse import Fill
from clustersh.frontend.bare import Overview
from clustersh.frontend.check_results import CheckReport, CheckResult, MachineCheck
from clustersh.frontend.discover import Discovery, Found
from clustersh.frontend.sshsync import Imported
from clustersh.services.program import Report
from clustersh.wire import fleet, joining, policy, rest, units
from clustersh.wire.jobs import Command
from clustersh.wire.problems import STATUS, Kind

from .conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "packaging").glob("*.md")])
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| .+ \| .+ \|$", re.MULTILINE)

NESTED = {'policy.client."NAME"': config.ClientPolicy, 'policy.target."TARGET"': config.TargetPolicy}


def documented() -> dict[str, dict[str, str]]:
    """Section to key to default, as docs/configuration.md has them."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    titles, bodies = sections[::2], sections[1::2]
    named = {title.strip("`[]"): dict(ROW.findall(body)) for title, body in zip(titles, bodies, strict=True)}
    return {title: rows for title, rows in named.items() if rows}


def test_every_section_and_key_is_documented_and_no_other() -> None:
    kinds = {**get_type_hints(config.Config), **NESTED}
    real = {name: set(kind.__struct_fields__) for name, kind in kinds.items()}
    assert {name: set(rows) for name, rows in documented().items()} == real


@pytest.mark.parametrize(("section", "key"), [(name, key) for name, rows in documented().items() for key in rows])
def test_the_documented_default_is_the_real_one(section: str, key: str) -> None:
    shown = documented()[section][key]
    default = getattr(NESTED[section]() if section in NESTED else getattr(config.Config(), section), key)
    if default is None:
        assert shown == "none"
        return
    text = shown.strip("`")
    if isinstance(default, bool):
        assert text == str(default).lower()
        return
    if text == "[]":
        assert default == ()
        return
    if text == "{}":
        assert default == {}
        return
    readers = {
        config.Duration: units.parse_duration,
        config.IdleTime: units.parse_duration,
        config.Size: units.parse_size,
    }
    read = readers.get(type(default), str)
    assert read(text.strip('"')) == default


def test_the_documented_example_is_read(tmp_path: Path) -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    assert config.load(tmp_path).agent.environment == "service"


@pytest.mark.parametrize(
    "example", re.findall(r"```toml\n(.*?)```", (DOCS / "policy.md").read_text(encoding="utf-8"), re.DOTALL)
)
def test_the_documented_policies_can_be_meant(example: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(example)
    read = config.load(tmp_path).policy
    assert read != config.PolicyConfig()
    check(read, RULES, tmp_path / "config.toml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_leads_to_every_page_once() -> None:
    listed = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Documentation")[2]
    assert sorted(re.findall(r"\]\(docs/([^)]+)\)", listed)) == sorted(page.name for page in DOCS.glob("*.md"))


@cache
def literals() -> str:
    """Every text that stands in the package's code and its installer, one a line."""
    found: list[str] = []
    for path in (ROOT / "clustersh").rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    installer = (ROOT / "packaging" / "install" / "common.sh").read_text(encoding="utf-8")
    found += re.findall(r'"([^"\n]+)"', installer + (ROOT / "packaging" / "install" / "install.sh").read_text("utf-8"))
    return "\n".join(found)


@pytest.mark.parametrize(
    "error",
    re.findall(
        r"^\| `(.+?)`.* \| .+ \| .+ \|$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    ),
)
def test_the_explained_errors_are_ones_that_the_programs_give(error: str) -> None:
    if error.startswith(("Unknown command", "Unable to write")):  # Twisted's own
        return
    fixed = re.split(r"'?\b(?:[A-Z]{3,}|HOST:PORT|N|5 minutes)\b'?|\.\.\.|: found", error)
    longest = max(fixed, key=len).strip(" ;:.")
    assert longest in literals()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_type_of_problem_is_documented_with_its_status(kind: Kind) -> None:
    rows = [line for line in (DOCS / "rest.md").read_text(encoding="utf-8").splitlines() if f"`{kind}`" in line]
    assert any(str(STATUS[kind]) in row.split("|")[1] for row in rows if row.startswith("|"))


@pytest.mark.parametrize(
    ("document", "heading"),
    [
        (rest.Machine, "`machines`"),
        (CheckReport, "`check`"),
        (rest.Whoami, "`whoami`"),
        (fleet.TargetView, "`targets`"),
        (Discovery, "`discover`"),
        (Found, "`discover`"),
        (fleet.Groups, "`groups`, `groups list`"),
        (fleet.Group, "`groups`, `groups list`"),
        (fleet.GroupChanged, "`groups add`"),
        (Imported, "`groups import-sshsync`"),
        (fleet.Labels, "`label`"),
        (fleet.LabelsChanged, "`label`"),
        (fleet.Plan, "`run --dry-run`"),
        (rest.Cancelled, "`cancel`"),
        (rest.Approved, "`clusterd approve`"),
        (rest.Client, "`clusterd clients`"),
        (rest.Pending, "`clusterd pending`"),
        (policy.AllowedRun, "`clusterd approve`"),
        (policy.PolicyTest, "`policy test`"),
        (policy.MachinesVerdict, "`policy test`"),
        (policy.PolicyView, "`policy`"),
        (policy.RuleView, "`policy`"),
        (policy.OnTarget, "`policy`"),
        (joining.Invitation, "`clusterd invite`"),
        (Fill, "`clusterd wheelhouse`"),
        (rest.Verified, "`clusterd audit verify`"),
        (Overview, "bare `clustersh --json`"),
        (joining.TokenMade, "`clusterd token create`"),
        (joining.Token, "`clusterd token list`"),
        (Enrolled, "`clusteragent enroll`"),
        (Left, "`clusteragent leave`"),
        (Status, "`clusteragent status`"),
        (Report, "`clusterd service`, `clusteragent service`"),
    ],
)
def test_the_documents_have_the_documented_fields(document: type[msgspec.Struct], heading: str) -> None:
    text = (DOCS / "json.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {heading}")]
    assert [name for name in document.__struct_fields__ if f'"{name}"' not in row] == []


@pytest.mark.parametrize(("document", "heading"), [(rest.Job, "## A job"), (rest.Run, "## A run on many machines")])
def test_every_field_of_a_job_and_a_run_is_documented(document: type[msgspec.Struct], heading: str) -> None:
    text = (DOCS / "json.md").read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    assert [name for name in document.__struct_fields__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize("part", [MachineCheck, CheckResult])
def test_every_field_of_a_check_is_documented(part: type[msgspec.Struct]) -> None:
    text = (DOCS / "json.md").read_text(encoding="utf-8").partition("## Checks")[2].partition("\n## ")[0]
    assert [name for name in part.__struct_fields__ if f'"{name}"' not in text] == []


def test_every_rule_of_the_guard_is_documented_with_its_action_and_its_words() -> None:
    text = (DOCS / "guard.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+?) \|", text, re.MULTILINE)
    assert rows == [(rule.name, str(rule.action), rule.why) for rule in RULES.values()]


def _shown(text: str) -> list[str]:
    return [code for code in re.findall(r"`([^`]+)`", text) if " " in code and "..." not in code]


@pytest.mark.parametrize("command", _shown((DOCS / "guard.md").read_text("utf-8").partition("## What passes")[2]))
def test_what_passes_is_told_truly(command: str) -> None:
    if command not in ("x=; rm -rf $x/", "rm -rf /"):
        for platform in ("linux/amd64", "windows/amd64"):
            assert Guard().judge(Command(shell=command), None, platform) == (), command


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `[a-z-]+` \| (?:deny|block).*", (DOCS / "guard.md").read_text("utf-8"), re.M)
)
def test_the_examples_of_a_rule_break_it(row: str) -> None:
    name, _, _, examples = re.split(r"(?<!\\) \| ", row.strip("| "), maxsplit=3)
    for command in _shown(examples.replace("\\|", "|")):
        judged = [Guard().judge(Command(shell=command), None, kind) for kind in ("linux/amd64", "windows/amd64")]
        assert name.strip("`") in {finding.rule for each in judged for finding in each} or command == "sudo reboot", (
            command
        )
