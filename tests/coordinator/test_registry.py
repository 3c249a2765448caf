"""The trusted list: who may speak, under which name, and how that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail

from clustersh.coordinator.records import Enrolled, Forgotten, Revoked
from clustersh.coordinator.registry import Key, Registry
from clustersh.trust.identity import Identity, Role
from clustersh.trust.keys import generate
from clustersh.wire.problems import Kind, ProblemError

from .test_runs import World

PUBLIC = generate().public_key()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def one() -> World:
        made.append(World(tmp_path))
        return made[-1]

    yield one
    for world in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


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
