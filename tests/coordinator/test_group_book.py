"""Groups, labels and facts: what changes them, what they refuse, and that the index tells the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from clustersh.coordinator import group_book
from clustersh.coordinator.facts import SOURCES, FactBook, groups_of, sane
from clustersh.coordinator.group_book import GroupBook
from clustersh.coordinator.ledger_files import Entry
from clustersh.coordinator.records import (
    Accepted,
    Forgotten,
    GroupAdded,
    GroupDeleted,
    GroupRemoved,
    Labelled,
    MachineRef,
)
from clustersh.trust.identity import Role
from clustersh.wire.fleet import FACT_NAMES, MAX_LABELS, RESERVED_GROUPS, group_name, label_key, label_value
from clustersh.wire.ids import MACHINE_NAME
from clustersh.wire.link import Facts
from clustersh.wire.problems import Kind, ProblemError

from .test_targets import LINUX, MAC, PUBLIC, come, group, join, label, meant, problem
from .world import ANN, JOSHUA, World


@pytest.fixture
def world(make_waiting_world: Callable[[], World]) -> World:
    return make_waiting_world()


def told(book: GroupBook) -> dict[str, Any]:
    """All that a book holds."""
    groups = {name: set(members) for name, members in book.groups.items()}
    labels = {key: {value: set(ids) for value, ids in values.items()} for key, values in book.labelled.items()}
    ids = set().union(*groups.values(), *(each for values in labels.values() for each in values.values()))
    of_machines = {each: (book.groups_of(each), book.labels_of(each)) for each in ids}
    return {"groups": groups, "labels": labels, "of machines": of_machines}


async def from_index(world: World) -> dict[str, Any]:
    """All that a book holds which is read from the index."""
    book = GroupBook(world.ledger)
    await book.load(world.index)
    return told(book)


@pytest_twisted.ensureDeferred
async def test_what_is_in_memory_is_what_the_index_tells_and_what_a_rebuilt_one_tells(
    make_waiting_world: Callable[[], World], tmp_path: Path
) -> None:
    world = make_waiting_world()
    await join(world, "a", "b", "c", "d")
    await group(world, "web", "a,b,c")
    await group(world, "web", "c,d")
    await group(world, "gone", "a")
    await label(world, "a,b", gpu="yes", rack="7")
    await label(world, "b", gpu="no", rack=None)
    await world.groups.remove("web", world.targets.resolve("a").machines, JOSHUA)
    await world.groups.delete("gone", JOSHUA)
    await world.registry.forget("c")
    before = told(world.groups)
    ids = {machine.name: machine.id for machine in world.registry.machines()}
    assert before == {
        "groups": {"web": {ids["b"], ids["d"]}},
        "labels": {"gpu": {"yes": {ids["a"]}, "no": {ids["b"]}}, "rack": {"7": {ids["a"]}}},
        "of machines": {
            ids["a"]: ((), {"gpu": "yes", "rack": "7"}),
            ids["b"]: (("web",), {"gpu": "no"}),
            ids["d"]: (("web",), {}),
        },
    }
    assert await from_index(world) == before
    await world.stop()
    (tmp_path / "index.sqlite").unlink()
    again = make_waiting_world()
    await again.load()
    assert told(again.groups) == before
    assert meant(again, "@web") == "b d"


@pytest_twisted.ensureDeferred
async def test_a_machine_stays_in_its_groups_under_another_name(world: World) -> None:
    await join(world, "a", "b")
    await group(world, "web", "a")
    await label(world, "a", gpu="yes")
    key = world.registry.machine("a")
    await world.registry.register(Role.AGENT, "z", PUBLIC, key.fingerprint, "192.0.2.1", "admin")
    assert meant(world, "@web") == meant(world, "@gpu:yes") == "z"


@pytest_twisted.ensureDeferred
async def test_a_forgotten_machine_is_in_nothing_and_its_successor_neither(world: World) -> None:
    await join(world, "a", "b")
    await group(world, "web", "a,b")
    await label(world, "a", gpu="yes")
    await come(world, "a", MAC)
    await world.registry.forget("a")
    assert meant(world, "@web") == "b"
    for target in ("@gpu:yes", "@os:darwin"):
        assert problem(world, target).kind is Kind.UNKNOWN_GROUP
    await world.registry.register(Role.AGENT, "a", PUBLIC, "another key", "192.0.2.1", "admin")
    assert meant(world, "@web") == "b"


@pytest_twisted.ensureDeferred
async def test_a_group_is_there_until_it_is_deleted_also_without_machines(world: World) -> None:
    await join(world, "a", "b")
    await group(world, "web", "a")
    await world.groups.remove("web", world.targets.resolve("a").machines, JOSHUA)
    assert problem(world, "@web").kind is Kind.EMPTY_TARGET
    await world.groups.delete("web", JOSHUA)
    assert problem(world, "@web").kind is Kind.UNKNOWN_GROUP
    with pytest.raises(ProblemError, match="no group is called @web"):
        await world.groups.delete("web", JOSHUA)


@pytest_twisted.ensureDeferred
async def test_who_is_forgotten_while_a_record_of_it_is_written_comes_back_in_neither(world: World) -> None:
    await join(world, "a", "b")
    machines = world.targets.resolve("a,b").machines
    forgetting = Deferred.fromCoroutine(world.registry.forget("a"))
    adding = Deferred.fromCoroutine(world.groups.add("web", machines, JOSHUA))
    labelling = Deferred.fromCoroutine(world.groups.label(machines, {"gpu": "yes"}, JOSHUA))
    await gatherResults([forgetting, adding, labelling])
    order = [type(entry.record) for entry in world.ledger.read()]
    assert order.index(Forgotten) < order.index(GroupAdded) < order.index(Labelled), "else this tests nothing"
    assert told(world.groups) == await from_index(world)
    assert meant(world, "@web") == meant(world, "@gpu:yes") == "b"
    assert len(world.groups.groups["web"]) == 1


@pytest_twisted.ensureDeferred
async def test_changes_at_once_are_made_one_after_the_other(world: World) -> None:
    await join(world, "a", "b", "c")
    machines = world.targets.resolve("a,b,c").machines
    both = await gatherResults(
        [Deferred.fromCoroutine(world.groups.add("web", machines, client)) for client in (JOSHUA, ANN)]
    )
    assert [len(changed) for changed in both] == [3, 0], "the second one had nothing to do"
    deleting = Deferred.fromCoroutine(world.groups.delete("web", JOSHUA))
    removing = Deferred.fromCoroutine(world.groups.remove("web", machines, ANN))
    await deleting
    with pytest.raises(ProblemError, match="no group is called @web"):
        await removing
    assert len(world.records(GroupAdded)) == 1


@pytest_twisted.ensureDeferred
async def test_a_dry_run_says_the_same_and_records_nothing(world: World) -> None:
    await join(world, "a", "b")
    await group(world, "web", "a")
    machines = world.targets.resolve("a,b").machines
    head = world.ledger.head
    added = await world.groups.add("web", machines, JOSHUA, dry_run=True)
    removed = await world.groups.remove("web", machines, JOSHUA, dry_run=True)
    labelled = await world.groups.label(machines, {"gpu": "yes"}, JOSHUA, dry_run=True)
    deleted = await world.groups.delete("web", JOSHUA, dry_run=True)
    names = [[key.name for key in keys] for keys in (added, removed, labelled)]
    assert names == [["b"], ["a"], ["a", "b"]]
    assert deleted == {machines[0].id}
    assert world.ledger.head == head
    assert meant(world, "@web") == "a"


@pytest_twisted.ensureDeferred
async def test_groups_and_labels_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await join(world, "a", "b")
    machines = world.targets.resolve("a,b").machines
    many: dict[str, str | None] = {f"k{number}": "v" for number in range(MAX_LABELS)}
    await world.groups.label(machines, many, JOSHUA)
    with pytest.raises(ProblemError, match=f"a would have more than {MAX_LABELS} labels"):
        await world.groups.label(machines, {"one-more": "v"}, JOSHUA)
    await world.groups.label(machines, {"one-more": "v", "k0": None}, JOSHUA)
    monkeypatch.setattr(group_book, "MAX_KEYS", MAX_LABELS)
    with pytest.raises(ProblemError, match="different keys"):
        await world.groups.label(machines, {"another": "v", "k1": None}, JOSHUA)
    monkeypatch.setattr(group_book, "MAX_GROUPS", 1)
    monkeypatch.setattr(group_book, "MAX_MEMBERS", 2)
    await world.groups.add("web", machines, JOSHUA)
    with pytest.raises(ProblemError, match="1 groups already"):
        await world.groups.add("db", machines, JOSHUA)
    monkeypatch.setattr(group_book, "MAX_GROUPS", 2)
    with pytest.raises(ProblemError, match="2 machines in all"):
        await world.groups.add("db", machines, JOSHUA)


@pytest_twisted.ensureDeferred
async def test_naming_a_new_machine_is_recorded_once_with_who_did_it(make_waiting_world: Callable[[], World]) -> None:
    world = make_waiting_world()
    await join(world, "a", "b", approved_by="open")
    ids = [machine.id for machine in world.registry.machines()]
    await world.registry.take_into_use(ids[:1], JOSHUA)
    await world.registry.take_into_use(ids[:1], ANN)
    await world.registry.accept("B")
    assert world.records(Accepted) == [Accepted("a", ids[0], JOSHUA.name, JOSHUA.id), Accepted("b", ids[1])]
    await world.stop()
    again = make_waiting_world()
    await again.load()
    assert meant(again, "all") == "a b"


def test_a_record_that_names_nobody_known_is_taken_in_all_the_same() -> None:
    """A ledger may have been written by hand, or by a later version."""
    book = GroupBook(None)  # type: ignore[arg-type]
    for labels in ({"gpu": None}, {"gpu": "yes", "rack": None}, {"gpu": None}):
        book.follow(Entry(1, "hash", "time", "file", 0, Labelled((MachineRef("a", "1"),), labels, "me", "1"), b""))
    for record in (GroupRemoved("web", (MachineRef("a", "1"),), "me", "1"), GroupDeleted("web", "me", "1")):
        book.follow(Entry(1, "hash", "time", "file", 0, record, b""))
    assert told(book) == {"groups": {}, "labels": {}, "of machines": {}}


# -- names


@pytest.mark.parametrize("name", sorted(RESERVED_GROUPS))
def test_groups_that_are_as_the_machines_are_belong_to_nobody(name: str) -> None:
    for word in (name, name.upper(), f"@{name}", f" {name} "):
        with pytest.raises(ValueError, match="a meaning of its own"):
            group_name(word)


@pytest.mark.parametrize("name", sorted(FACT_NAMES))
def test_no_label_is_called_as_a_fact_is(name: str) -> None:
    with pytest.raises(ValueError, match="what machines say of themselves"):
        label_key(name.title())


@given(st.text(max_size=70))
def test_names_of_groups_and_labels_can_stand_in_a_target(text: str) -> None:
    for read in (group_name, label_key, label_value):
        try:
            word = read(text)
        except ValueError as error:
            assert str(error).isprintable()
        else:
            assert MACHINE_NAME.fullmatch(word)


# -- facts


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (LINUX, {"os": ("linux",), "arch": ("amd64",), "distribution": ("debian-13", "debian"), "python": ("3.13",)}),
        (Facts(distribution="arch"), {"distribution": ("arch",)}),
        (Facts(distribution="opensuse-leap-15.6"), {"distribution": ("opensuse-leap-15.6", "opensuse-leap")}),
        (
            Facts(os="Windows", distribution="Windows-11"),
            {"os": ("windows",), "distribution": ("windows-11", "windows")},
        ),
        (Facts(os="a b", arch="x" * 65, distribution="-", python="three"), {}),
        (Facts(os="@web", arch="a,b", distribution="*"), {}),
    ],
)
def test_the_groups_that_facts_make(facts: Facts, expected: dict[str, tuple[str, ...]]) -> None:
    assert groups_of(facts) == {source: expected.get(source, ()) for source in SOURCES}


def test_what_facts_may_be() -> None:
    lies = Facts(
        platform="linux/amd64",
        hostname="a\x1b[2Jb",
        user="root\nadmin",
        home="/" + "x" * 4000,
        python="3" * 200,
        distribution="debian\u202e-13",
        cpus=1 << 40,
        memory=(1 << 63) - 1,
    )
    assert sane(lies) == Facts(platform="linux/amd64", os="linux", arch="amd64")
    assert sane(LINUX) == LINUX


@given(st.builds(Facts, *[st.text(max_size=200)] * 9, cpus=st.integers(0, 1 << 62), memory=st.integers(0, 1 << 62)))
def test_whatever_a_machine_says_is_short_and_on_one_line(facts: Facts) -> None:
    kept = sane(facts)
    texts = [value for name in Facts.__struct_fields__ if isinstance(value := getattr(kept, name), str)]
    assert all(text.isprintable() and len(text) <= 1024 for text in texts)
    assert all(MACHINE_NAME.fullmatch(name) for names in groups_of(kept).values() for name in names)
    assert sane(kept) == kept


@pytest_twisted.ensureDeferred
async def test_facts_are_checked_as_they_come_and_follow_the_machine(world: World) -> None:
    await join(world, "a")
    await come(world, "a", Facts(platform="linux/amd64", hostname="\x1b[31m"))
    key = world.registry.machine("a")
    assert world.fleet.seen[key.id].facts == Facts(platform="linux/amd64", os="linux", arch="amd64")
    assert meant(world, "@os:linux") == "a"
    await come(world, "a", MAC)
    assert meant(world, "@os:darwin") == "a"
    assert problem(world, "@os:linux").kind is Kind.UNKNOWN_GROUP


def test_the_book_of_facts_holds_nothing_of_who_is_gone() -> None:
    book = FactBook()
    for machine_id in ("1", "2"):
        book.note(machine_id, LINUX)
    book.note("1", MAC)
    assert book.groups["os"] == {"linux": {"2"}, "darwin": {"1"}}
    for machine_id in ("1", "2", "3"):
        book.forget(machine_id)
    assert book.groups == {source: {} for source in SOURCES}
