"""``clustersh targets``, ``groups`` and ``label``: what they send and say, and what they refuse before that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from clustersh.wire.fleet import Group, GroupChanged, Groups, Labels, LabelsChanged, MachineLabels, TargetView
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Machine, Machines

from .conftest import Caller
from .coordinator_double import Double

NAMES = tuple(f"m{number}" for number in range(30))


@pytest_twisted.ensureDeferred
async def test_targets_shows_the_machines_and_what_they_are_together(caller: Caller, double: Double) -> None:
    view = TargetView("x", "", ("web01", "web02", "odd\x1b[2J"), "odd,web[01-02]", 1, ("web02",), ("web01",))
    double.answers["GET /v1/targets"] = lambda query: view
    assert await caller("targets", "@web", "db1", "-x", "web03") == 0
    assert double.queries[-1] == {"target": "@web,db1", "exclude": "web03"}
    assert caller.out.decode().splitlines()[2:] == [
        "web01      | online (new)",
        "web02      | offline",
        "odd\\x1b[2J | online",
    ]
    assert caller.err == "odd,web[01-02]: 3 machines, 1 online\n"
    before = len(caller.out)
    assert await caller("targets", "@web", "--json") == 0
    assert json.loads(caller.out[before:])["machines"] == ["web01", "web02", "odd\x1b[2J"]


@pytest_twisted.ensureDeferred
async def test_groups_are_listed_new_members_told(caller: Caller, double: Double) -> None:
    double.answers["GET /v1/groups"] = lambda query: Groups((Group("web", ("a1", "a2"), "a[1-2]", ("a2",)),))
    assert await caller("groups") == await caller("groups", "list") == 0
    assert caller.out.decode().splitlines()[2] == "@web  | 2        | a[1-2] (new: a2)"
    double.answers["GET /v1/groups"] = lambda query: Groups(())
    assert await caller("groups") == 0
    assert "hint: there is no group yet" in caller.err


@pytest.mark.parametrize(
    ("verb", "changed", "said"),
    [
        ("add", GroupChanged("web", ("a", "b"), ("c",)), "Added to @web: a, b (1 is in it)."),
        ("add", GroupChanged("web", ("a",), (), True), "Would be added to @web: a."),
        ("add", GroupChanged("web", (), ("a", "b")), "Nothing to change: a, b are in @web."),
        ("remove", GroupChanged("web", NAMES), f"Removed from @web: {', '.join(NAMES[:10])} and 20 more."),
        ("remove", GroupChanged("web", (), ("a",)), "Nothing to change: a is not in @web."),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_changed_is_told(
    caller: Caller, double: Double, verb: str, changed: GroupChanged, said: str
) -> None:
    double.answers[f"POST /v1/groups/web/{verb}"] = lambda query: changed
    assert await caller("groups", verb, "@Web", "a", "b,c") == 0
    assert caller.out.decode() == f"{said}\n"


@pytest_twisted.ensureDeferred
async def test_labels_are_listed_and_changed(caller: Caller, double: Double) -> None:
    double.answers["GET /v1/labels"] = lambda query: Labels((MachineLabels("ws1", {"gpu": "yes", "rack": "7"}),))
    double.answers["POST /v1/labels"] = lambda query: LabelsChanged({"gpu": "yes", "rack": None}, ("ws1",), (), True)
    assert await caller("label") == 0
    assert double.queries[-1]["target"] == "all"
    assert caller.out.decode().splitlines()[2] == "ws1  | gpu=yes rack=7"
    assert await caller("label", "ws1", "gpu=yes", "rack-", "--dry-run") == 0
    assert caller.out.decode().splitlines()[3] == "Would be labelled gpu=yes rack-: ws1."


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("targets",), "the following arguments are required: EXPR"),
        (("groups", "add", "web"), "groups add takes a group and which machines"),
        (("groups", "delete"), "groups delete takes a group"),
        (("groups", "delete", "a", "b"), "groups delete takes a group"),
        (("groups", "list", "a"), "groups list takes nothing more"),
        (("groups", "nonsense"), "groups takes list, add, remove, delete or import-sshsync, not 'nonsense'"),
        (("groups", "add", "all", "a"), "'all' can't be a group's name: it has a meaning of its own"),
        (("groups", "add", "a b", "a"), "can't be a group's name: use 1 to 64"),
        (("groups", "import-sshsync", "a", "b"), "takes one file"),
        (("groups", "import-sshsync"), "there is no config.yml or config.yaml in "),
        (("label", "gpu=yes"), "which machine is gpu=yes for?"),
        (("label", "ws1", "gpu"), "'gpu' is no change"),
        (("label", "ws1", "=yes"), "can't be a label's key"),
        (("label", "ws1", "gpu="), "can't be a label's value"),
        (("label", "ws1", "gpu=a b"), "can't be a label's value"),
        (("label", "ws1", "gpu=yes", "GPU-"), "gpu is there twice"),
        (("label", "ws1", "os=linux"), "'os' is what machines say of themselves"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    caller: Caller, double: Double, words: tuple[str, ...], error: str
) -> None:
    assert await caller(*words) == 125
    said, *hints = caller.err.splitlines()
    assert said.startswith("ERROR: ") and error in said
    assert hints and all(re.match(r"hint: .*clustersh (groups|label|targets)", hint) for hint in hints)
    assert not double.calls


@pytest.mark.parametrize("command", ["targets", "groups", "label"])
@pytest_twisted.ensureDeferred
async def test_help_has_examples(caller: Caller, command: str) -> None:
    assert await caller(command, "--help") == 0
    assert f"examples:\n  clustersh {command}" in caller.out.decode()


# -- sshsync


@pytest.fixture
def imported(caller: Caller, double: Double) -> Any:
    """Imports a file's content; returns the exit status."""
    double.answers["GET /v1/machines"] = lambda query: Machines(
        tuple(Machine(name, name, "", "online") for name in ("web1", "db1", "no", "007"))
    )
    for group in ("web", "db", "odd"):
        double.answers[f"POST /v1/groups/{group}/add"] = lambda query, group=group: GroupChanged(group, ("x",))

    async def run(content: bytes, *words: str) -> int:
        (caller.folder / "config.yml").write_bytes(content)
        return await caller("groups", "import-sshsync", "config.yml", *words)

    return run


@pytest_twisted.ensureDeferred
async def test_what_is_known_is_imported_and_the_rest_is_told(caller: Caller, double: Double, imported: Any) -> None:
    content = b"groups:\n  web: [web1, Web1, nobody]\n  db: [db1]\n  odd: [no, 007]\n  'bad name': [db1]\n  none:\n"
    assert await imported(content, "--json") == 0
    document = json.loads(caller.out)
    assert [group["group"] for group in document["groups"]] == ["web", "db", "odd"]
    assert document["unknown"] == {"web": ["nobody"]}
    assert list(document["left_out"]) == ["bad name"]
    assert [call for call in double.calls if call.startswith("POST")] == [
        f"POST /v1/groups/{group}/add" for group in ("web", "db", "odd")
    ], "the ones without a known machine are not asked for"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"groups: [", "is no YAML at line"),
        (b"groups:\n\tweb: [a]", "is no YAML at line 2"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"groups: !!python/object/apply:os.system ['true']", "is no YAML"),
        (b"groups: {web: !!python/name:os.system }", "is no YAML"),
        (b"", "has no groups"),
        (b"just text", "has no groups"),
        (b"groups: [web]", "has no groups"),
        (b"groups: {web: 7}", "has a group 'web' that is no list of names"),
        (b"groups: {web: [[a]]}", "has a group 'web' that is no list of names"),
        (b"groups: &a\n  web: *a", "has a group 'web' that is no list of names"),
        (b"a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ngroups: {web: *c}", "that is no list of names"),
        (b"groups: {web: " + b"[" * 5000, "is no YAML"),
        (b"#" * (1 << 20) + b"\n", "is larger than 1 MiB"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest_twisted.ensureDeferred
async def test_a_file_that_can_not_be_used_is_one_error(
    caller: Caller, double: Double, imported: Any, content: bytes, error: str
) -> None:
    assert await imported(content) == 125
    assert caller.err.startswith("ERROR: ") and error in caller.err
    assert "hint: sshsync's file looks like" in caller.err
    assert "Traceback" not in caller.err
    assert not double.calls


@pytest_twisted.ensureDeferred
async def test_a_folder_is_no_file(caller: Caller, tmp_path: Path) -> None:
    assert await caller("groups", "import-sshsync", str(tmp_path)) == 125
    assert "can't be read" in caller.err


@pytest_twisted.ensureDeferred
async def test_a_refusal_ends_with_what_the_coordinator_says(caller: Caller, double: Double) -> None:
    double.refuse = ProblemError(Kind.UNKNOWN_GROUP, "no group is called @wbe", hint="did you mean @web?")
    assert await caller("targets", "@wbe") == 125
    assert caller.err == "ERROR: no group is called @wbe\nhint: did you mean @web?\n"
