"""The trusted list: who may speak, under which name, and how that ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail

from clustersh.coordinator.records import Enrolled, Forgotten, Renamed, Revoked
from clustersh.coordinator.registry import Key, Registry
from clustersh.trust.identity import Identity, Role
from clustersh.trust.keys import generate
from clustersh.wire.ids import client_name, machine_name
from clustersh.wire.problems import Kind, ProblemError

from .test_runs import World

PUBLIC = generate().public_key()


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


async def let_in(world: World, role: Role, name: str, mark: str) -> Identity:
    await world.registry.register(role, name, PUBLIC, mark, "192.0.2.1", "admin")
    [key] = [key for key in await keys(world) if key.fingerprint == mark]
    return Identity(role, key.name, key.id)


async def keys(world: World) -> list[Key]:
    return [*world.registry.clients(), *world.registry.machines()]


def refusal(call: Callable[[], object]) -> Kind:
    with pytest.raises(ProblemError) as caught:
        call()
    return caught.value.problem.kind


@pytest_twisted.ensureDeferred
async def test_only_what_was_let_in_is_trusted_and_only_as_what_it_is(world: World) -> None:
    joshua = await let_in(world, Role.FRONTEND, "joshua@mba", "mark-1")
    ws1 = await let_in(world, Role.AGENT, "ws1", "mark-2")
    world.registry.check(joshua, "mark-1")
    world.registry.check(ws1, "mark-2")
    assert refusal(lambda: world.registry.check(joshua, "mark-3")) is Kind.UNTRUSTED
    assert refusal(lambda: world.registry.check(joshua, "mark-2")) is Kind.UNTRUSTED
    assert refusal(lambda: world.registry.check(Identity(Role.ADMIN, "x", joshua.id), "mark-1")) is Kind.UNTRUSTED


@pytest_twisted.ensureDeferred
async def test_a_name_belongs_to_its_key_until_it_is_freed(world: World) -> None:
    await let_in(world, Role.AGENT, "ws1", "mark-1")
    with pytest.raises(ProblemError) as caught:
        await let_in(world, Role.AGENT, "ws1", "mark-2")
    assert caught.value.problem.kind is Kind.NAME_TAKEN
    assert "clusterd forget ws1" in caught.value.problem.hint
    await world.registry.forget("ws1")
    await let_in(world, Role.AGENT, "ws1", "mark-2")
    assert world.registry.machine("WS1").fingerprint == "mark-2"
    assert refusal(lambda: world.registry.check_join(Role.AGENT, "new", "mark-1")) is Kind.UNTRUSTED


@pytest_twisted.ensureDeferred
async def test_one_key_has_one_role(world: World) -> None:
    await let_in(world, Role.AGENT, "ws1", "mark-1")
    assert refusal(lambda: world.registry.check_join(Role.FRONTEND, "joshua@mba", "mark-1")) is Kind.UNTRUSTED


@pytest_twisted.ensureDeferred
async def test_the_same_key_may_come_again_and_keeps_its_id(world: World) -> None:
    before = await let_in(world, Role.AGENT, "ws1", "mark-1")
    after = await let_in(world, Role.AGENT, "ws1", "mark-1")
    assert before == after
    assert len(world.registry.machines()) == 1


@pytest_twisted.ensureDeferred
async def test_a_revocation_holds_at_once_is_told_and_survives_a_restart(make_world: Callable[[], World]) -> None:
    first = make_world()
    joshua = await let_in(first, Role.FRONTEND, "joshua@mba", "mark-1")
    await let_in(first, Role.AGENT, "ws1", "mark-2")
    told: list[Key] = []
    first.registry.watch_ended(told.append)
    await first.registry.revoke("joshua@mba")
    assert refusal(lambda: first.registry.check(joshua, "mark-1")) is Kind.UNTRUSTED
    assert [key.fingerprint for key in told] == ["mark-1"]
    with pytest.raises(ProblemError):
        await first.registry.revoke("joshua@mba")
    await first.stop()
    second = make_world()
    await second.load()
    assert refusal(lambda: second.registry.check(joshua, "mark-1")) is Kind.UNTRUSTED
    assert second.registry.machine("ws1").fingerprint == "mark-2"


@pytest_twisted.ensureDeferred
async def test_a_machine_is_new_until_a_client_names_it(world: World) -> None:
    await world.registry.register(Role.AGENT, "ws1", PUBLIC, "mark-1", "192.0.2.1", "open")
    assert world.registry.machine("ws1").new
    world.registry.used(world.registry.machine("ws1").id)
    assert not world.registry.machine("ws1").new


@pytest_twisted.ensureDeferred
async def test_a_key_that_is_revoked_while_it_joins_again_stays_revoked(world: World) -> None:
    identity = await let_in(world, Role.AGENT, "ws1", "mark")
    leaving = Deferred.fromCoroutine(world.registry.forget("ws1"))
    with pytest.raises(ProblemError) as caught:
        await world.registry.register(Role.AGENT, "ws1", PUBLIC, "mark", "192.0.2.1", "same key")
    await leaving
    assert caught.value.problem.kind is Kind.UNTRUSTED
    with pytest.raises(ProblemError):
        world.registry.check(identity, "mark")
    assert world.registry.machines() == []


@pytest_twisted.ensureDeferred
async def test_an_older_certificate_speaks_under_the_name_that_its_key_has_now(world: World) -> None:
    before = await let_in(world, Role.FRONTEND, "ann@desk", "mark")
    await world.registry.register(Role.FRONTEND, "bob@desk", PUBLIC, "mark", "192.0.2.1", "admin")
    assert world.registry.check(before, "mark").name == "bob@desk", "ann@desk may be another's by now"


@pytest_twisted.ensureDeferred
async def test_only_one_admin_key_stays_trusted(world: World) -> None:
    for mark in ("one", "two"):
        await world.registry.register(Role.ADMIN, f"admin-{mark}", PUBLIC, mark, "", "first start")
    enrolled = [record for record in world.records(Enrolled) if isinstance(record, Enrolled)]
    trusted = {record.fingerprint: Identity(Role.ADMIN, record.name, record.id) for record in enrolled}
    await world.registry.revoke_other_admins("two")
    assert world.registry.check(trusted["two"], "two") == trusted["two"]
    with pytest.raises(ProblemError):
        world.registry.check(trusted["one"], "one")


@pytest.mark.parametrize("role", [Role.FRONTEND, Role.AGENT])
@pytest_twisted.ensureDeferred
async def test_trust_ends_also_where_that_can_not_be_recorded_and_again_when_it_can(
    world: World, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_trust = world.registry.forget if role is Role.AGENT else world.registry.revoke
    old = await let_in(world, role, "name", "mark-1")
    monkeypatch.setattr(world.ledger, "append", lambda record: fail(ProblemError(Kind.STORAGE, "the disk is full")))
    with pytest.raises(ProblemError, match="name is trusted no more, but only until the coordinator restarts"):
        await end_trust("Name")
    assert refusal(lambda: world.registry.check(old, "mark-1")) is Kind.UNTRUSTED
    monkeypatch.undo()
    # A restart would trust both, and a revocation find one of them.
    assert refusal(lambda: world.registry.check_join(role, "name", "mark-2")) is Kind.NAME_TAKEN
    await end_trust("name")
    assert isinstance(list(world.ledger.read())[-1].record, Revoked | Forgotten)
    new = await let_in(world, role, "name", "mark-2")
    assert world.registry.check(new, "mark-2") == new
    await end_trust("name")
    assert refusal(lambda: world.registry.check(new, "mark-2")) is Kind.UNTRUSTED
    restarted = Registry(world.ledger, world.index, lambda identity, key: b"")
    await restarted.load()
    assert refusal(lambda: restarted.check(old, "mark-1")) is Kind.UNTRUSTED
    assert refusal(lambda: restarted.check(new, "mark-2")) is Kind.UNTRUSTED


# -- names


async def register(world: World, name: str, mark: str, approved_by: str = "open", role: Role = Role.AGENT) -> None:
    await world.registry.register(role, name, PUBLIC, mark, "192.0.2.1", approved_by)


@pytest.mark.parametrize(
    ("role", "taken", "wanted", "free"),
    [
        (Role.AGENT, ["ws1"], "ws1", "ws1-2"),
        (Role.AGENT, ["ws1", "ws1-2", "ws1-3"], "ws1", "ws1-4"),
        (Role.AGENT, ["a" * 64], "a" * 64, "a" * 62 + "-2"),
        (Role.FRONTEND, ["ann@" + "m" * 64], "ann@" + "m" * 64, "ann@" + "m" * 62 + "-2"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_for_a_taken_name_the_first_free_one_is_proposed(
    world: World, role: Role, taken: list[str], wanted: str, free: str
) -> None:
    for number, name in enumerate(taken):
        await register(world, name, f"mark-{number}", role=role)
    with pytest.raises(ProblemError) as caught:
        world.registry.check_join(role, wanted, "another")
    assert caught.value.problem.kind is Kind.NAME_TAKEN
    verb = "forget" if role is Role.AGENT else "revoke"
    assert caught.value.problem.hint.splitlines() == [
        f"this one is free: --name {free}",
        f"or take {wanted} over: on the coordinator, clusterd {verb} {wanted}",
    ]
    world.registry.check_join(role, free, "another")
    assert (machine_name if role is Role.AGENT else client_name)(free) == free


@pytest_twisted.ensureDeferred
async def test_a_key_under_another_name_is_renamed_and_keeps_its_id(make_world: Callable[[], World]) -> None:
    world = make_world()
    await register(world, "ws1", "mark")
    before = world.registry.machine("ws1")
    world.registry.used(before.id)
    told: list[Key] = []
    world.registry.watch_renamed(told.append)
    await register(world, "db1", "mark", "admin")
    after = world.registry.machine("db1")
    assert (after.id, after.enrolled, after.new) == (before.id, before.enrolled, False)
    assert [key.name for key in told] == ["db1"]
    assert [(record.before, record.name, record.id) for record in renames(world)] == [("ws1", "db1", before.id)]
    assert refusal(lambda: world.registry.machine("ws1")) is Kind.UNKNOWN_MACHINE
    await register(world, "ws1", "another key")
    assert world.registry.machine("ws1").id != before.id, "its old name is free"
    await world.stop()
    again = make_world()
    await again.load()
    assert again.registry.machine("db1") == after
    assert len(again.registry.machines()) == 2


@pytest_twisted.ensureDeferred
async def test_a_machine_that_renames_itself_is_new_under_that_name(make_world: Callable[[], World]) -> None:
    world = make_world()
    await register(world, "ws1", "mark")
    world.registry.used(world.registry.machine("ws1").id)
    await register(world, "ws1", "mark", "same key")
    assert not world.registry.machine("ws1").new
    await register(world, "db1", "mark", "open")
    assert world.registry.machine("db1").new, "nobody has used it by that name"
    await world.stop()
    again = make_world()
    await again.load()
    assert again.registry.machine("db1").new


@pytest_twisted.ensureDeferred
async def test_of_two_that_want_one_name_at_once_one_gets_it(world: World) -> None:
    await register(world, "ws1", "mark-1")
    renaming = Deferred.fromCoroutine(register(world, "db1", "mark-1"))
    with pytest.raises(ProblemError) as caught:
        await register(world, "db1", "mark-2")
    assert caught.value.problem.kind is Kind.NAME_TAKEN
    assert "--name db1-2" in caught.value.problem.hint
    await renaming
    assert world.registry.machine("db1").fingerprint == "mark-1"
    assert len(world.registry.machines()) == 1


@pytest_twisted.ensureDeferred
async def test_one_key_that_joins_twice_at_once_becomes_one_machine(world: World) -> None:
    first = Deferred.fromCoroutine(register(world, "ws1", "mark"))
    with pytest.raises(ProblemError) as caught:
        await register(world, "ws2", "mark")
    assert caught.value.problem.kind is Kind.UNAVAILABLE
    await first
    assert [key.name for key in world.registry.machines()] == ["ws1"]
    await register(world, "ws2", "mark")
    assert [key.name for key in world.registry.machines()] == ["ws2"]


# -- leaving


@pytest.mark.parametrize("role", [Role.AGENT, Role.FRONTEND])
@pytest_twisted.ensureDeferred
async def test_who_leaves_is_trusted_no_more_and_frees_the_name(world: World, role: Role) -> None:
    identity = await let_in(world, role, "ws1", "mark-1")
    told: list[Key] = []
    world.registry.watch_ended(told.append)
    await world.registry.leave(identity)
    assert refusal(lambda: world.registry.check(identity, "mark-1")) is Kind.UNTRUSTED
    assert [key.fingerprint for key in told] == ["mark-1"]
    kind = Forgotten if role is Role.AGENT else Revoked
    assert [getattr(record, "by", "") for record in world.records(kind)] == ["itself"]
    await let_in(world, role, "ws1", "mark-2")
    await world.registry.leave(identity)
    assert world.registry.holder(role, "ws1") == "mark-2", "it is not the old one's to give up"


def renames(world: World) -> list[Renamed]:
    return [record for record in world.records(Renamed) if isinstance(record, Renamed)]
