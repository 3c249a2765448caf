"""What targets mean: names, ranges, globs, groups, labels, facts, and what joins them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from clustersh.coordinator.expressions import MAX_GLOBS, MAX_GROUPS, MAX_NAMES, read
from clustersh.coordinator.facts import SOURCES
from clustersh.coordinator.group_sources import GroupSources
from clustersh.coordinator.targets import Resolved
from clustersh.nodesets import NodeSet
from clustersh.trust.identity import Role
from clustersh.trust.keys import generate
from clustersh.wire.fleet import MAX_TARGET, LeftOut
from clustersh.wire.link import Facts, Hello
from clustersh.wire.problems import Kind, Problem, ProblemError

from .world import JOSHUA, Agent, World

PUBLIC = generate().public_key()
LINUX = Facts(platform="linux/amd64", os="linux", arch="amd64", distribution="debian-13", python="3.13.5")
MAC = Facts(platform="darwin/arm64", os="darwin", arch="arm64", distribution="macos-15.1", python="3.12.1")


@pytest.fixture
def world(make_waiting_world: Callable[[], World]) -> World:
    return make_waiting_world()


async def join(world: World, *names: str, approved_by: str = "admin") -> None:
    """Let machines of those *names* in."""
    await gatherResults(
        [
            Deferred.fromCoroutine(
                world.registry.register(Role.AGENT, name, PUBLIC, f"key of {name}", "192.0.2.1", approved_by)
            )
            for name in names
        ]
    )


async def come(world: World, name: str, facts: Facts) -> Agent:
    """Have a machine's agent come, saying *facts*."""
    agent = Agent(world, name)
    await world.fleet.hello(agent.link, Hello("1", "i", "store", 1000.0, facts))
    return agent


async def group(world: World, name: str, target: str) -> None:
    await world.groups.add(name, world.targets.resolve(target).machines, JOSHUA)


async def label(world: World, target: str, **labels: str | None) -> None:
    await world.groups.label(world.targets.resolve(target).machines, labels, JOSHUA)


async def small_fleet(world: World) -> None:
    """web01 to web03 and web1, db1 and db2, ws-1.lan; two groups, two labels; web01, web02 and db1 are online."""
    await join(world, "web01", "web02", "web03", "web1", "db1", "db2", "ws-1.lan")
    await group(world, "web", "web[01-03]")
    await group(world, "rack1", "web01,db1")
    await group(world, "rack2", "web02,db2")
    await label(world, "web01,db1", gpu="yes")
    await label(world, "web02", gpu="no")
    await come(world, "web01", LINUX)
    await come(world, "web02", LINUX)
    await come(world, "db1", MAC)


def names(resolved: Resolved) -> str:
    return " ".join(machine.name for machine in resolved.machines)


def meant(world: World, target: str, exclude: str = "") -> str:
    return names(world.targets.resolve(target, exclude))


def problem(world: World, target: str, exclude: str = "") -> Problem:
    with pytest.raises(ProblemError) as caught:
        world.targets.resolve(target, exclude)
    return caught.value.problem


ALL = "db1 db2 web01 web02 web03 web1 ws-1.lan"
MEANINGS = [
    ("web01", "", "web01"),
    (" WEB01 ", "", "web01"),
    ("web01,db1", "", "web01 db1"),
    ("web01 , db1", "", "web01 db1"),
    ("db1,web01,db1", "", "db1 web01"),
    ("web[01-03]", "", "web01 web02 web03"),
    ("web[01,03]", "", "web01 web03"),
    ("web[01-03/2]", "", "web01 web03"),
    ("web[1]", "", "web1"),
    ("Web[01-02],DB[1-2]", "", "db1 db2 web01 web02"),
    ("ws-[1].lan", "", "ws-1.lan"),
    ("@web", "", "web01 web02 web03"),
    ("@WEB", "", "web01 web02 web03"),
    ("@rack[1-2]", "", "db1 db2 web01 web02"),
    ("all", "", ALL),
    ("@*", "", ALL),
    ("@all", "", ALL),
    ("*", "", ALL),
    ("db*", "", "db1 db2"),
    ("db?", "", "db1 db2"),
    ("web0?", "", "web01 web02 web03"),
    ("web?", "", "web1"),
    ("*[1-2]", "", "db1 db2 web01 web02 web1"),
    ("*.lan", "", "ws-1.lan"),
    ("@web!web03", "", "web01 web02"),
    ("@web ! web03 , db1", "", "db1 web01 web02"),
    ("all!@web!db*", "", "web1 ws-1.lan"),
    ("@web&@rack1", "", "web01"),
    ("@web^@rack1", "", "db1 web02 web03"),
    ("@web,db1&@rack1", "", "db1 web01"),
    ("@gpu:yes", "", "db1 web01"),
    ("@gpu:*", "", "db1 web01 web02"),
    ("@os:linux", "", "web01 web02"),
    ("@OS:Darwin", "", "db1"),
    ("@arch:arm64", "", "db1"),
    ("@distribution:debian", "", "web01 web02"),
    ("@distribution:debian-13", "", "web01 web02"),
    ("@python:3.13", "", "web01 web02"),
    ("@online", "", "db1 web01 web02"),
    ("@offline", "", "db2 web03 web1 ws-1.lan"),
    ("@online&@web!@gpu:no", "", "web01"),
    ("all", "@web", "db1 db2 web1 ws-1.lan"),
    ("all", "web*,@offline", "db1"),
    ("@web", "web[02-03]", "web01"),
    ("@web", "@web!web01", "web01"),
    ("web01", "db1", "web01"),
]


@pytest_twisted.ensureDeferred
async def test_what_targets_mean(world: World) -> None:
    await small_fleet(world)
    found = [(target, exclude, meant(world, target, exclude)) for target, exclude, _ in MEANINGS]
    assert found == MEANINGS


@pytest_twisted.ensureDeferred
async def test_what_is_named_is_what_the_target_says_itself(world: World) -> None:
    await small_fleet(world)
    ids = {machine.name: machine.id for machine in world.registry.machines()}
    for target, said in (
        ("web01", ["web01"]),
        ("web[01-02],@rack2", ["web01", "web02"]),
        ("@web,db*", []),
        ("@web!web01", []),
        ("web01,web02!web02", ["web01"]),
    ):
        assert world.targets.resolve(target).named == {ids[name] for name in said}, target


@pytest.mark.parametrize(
    ("target", "exclude", "kind", "detail", "hint"),
    [
        ("wbe03", "", Kind.UNKNOWN_MACHINE, "no machine is called 'wbe03'", "did you mean web03"),
        ("@web!wbe03", "", Kind.UNKNOWN_MACHINE, "no machine is called 'wbe03'", "did you mean web03"),
        ("@web", "wbe03", Kind.UNKNOWN_MACHINE, "no machine is called 'wbe03'", "did you mean web03"),
        ("web[01-05]", "", Kind.UNKNOWN_MACHINE, "no machine is called 'web04' or 'web05'", "web04: did you mean"),
        ("web[1-9]", "", Kind.UNKNOWN_MACHINE, "'web2', 'web3', 'web4', 'web5', 'web6' or 3 more", "web2: did you"),
        ("wbe*", "", Kind.UNKNOWN_MACHINE, "no machine's name is like 'wbe*'", "did you mean web*?"),
        (
            "zzz*",
            "",
            Kind.UNKNOWN_MACHINE,
            "no machine's name is like 'zzz*'",
            "see: clustersh machines, clustersh gro",
        ),
        ("w?bo01,@web", "", Kind.UNKNOWN_MACHINE, "no machine's name is like 'w?bo01'", "did you mean web01"),
        ("wbe*,@wbe", "", Kind.UNKNOWN_MACHINE, "like 'wbe*'; no group is called @wbe", "wbe*: did you mean web*?"),
        ("@wbe", "", Kind.UNKNOWN_GROUP, "no group is called @wbe", "did you mean @web?"),
        ("all!@rakc1", "", Kind.UNKNOWN_GROUP, "no group is called @rakc1", "did you mean @rack1"),
        ("all", "@rack[1-3]", Kind.UNKNOWN_GROUP, "no group is called @rack3", "did you mean @rack"),
        ("@onlin", "", Kind.UNKNOWN_GROUP, "no group is called @onlin", "did you mean @online or @offline?"),
        ("@gpu:yse", "", Kind.UNKNOWN_GROUP, "no group is called @gpu:yse", "did you mean @gpu:yes?"),
        ("@gup:yes", "", Kind.UNKNOWN_GROUP, "no group is called @gup:yes", "did you mean @gpu:?"),
        ("@os:windows", "", Kind.UNKNOWN_GROUP, "no group is called @os:windows", "@os:darwin, @os:linux"),
        ("@kernel:6", "", Kind.UNKNOWN_GROUP, "no group is called @kernel:6", "@arch:, @distribution:"),
        ("web9,@wbe", "", Kind.UNKNOWN_MACHINE, "'web9'; no group is called @wbe", "@wbe: did you mean @web?"),
        ("@web&@rack2!web02", "", Kind.EMPTY_TARGET, "is no machine now", "clustersh machines"),
        ("@web", "web*", Kind.EMPTY_TARGET, "'@web' without 'web*'", "3 machines match, but all are excluded"),
        ("web01", "@web", Kind.EMPTY_TARGET, "'web01' without '@web'", "1 machine matches, but all are excluded"),
        ("", "", Kind.BAD_REQUEST, "the target is empty", "name a machine"),
        ("web01 web02", "", Kind.BAD_REQUEST, "can't be a machine's name", "put a comma between names"),
        ("!web01", "", Kind.BAD_REQUEST, "nothing beside its '!'", "all!web03"),
        ("web01,", "", Kind.BAD_REQUEST, "nothing beside its ','", "leave it out"),
        ("web01,,db1", "", Kind.BAD_REQUEST, "nothing beside its ','", "leave it out"),
        ("web[1-", "", Kind.BAD_REQUEST, "a bracket too many or too few", "web[01-10,12]"),
        ("web1]", "", Kind.BAD_REQUEST, "a bracket too many or too few", "web[01-10,12]"),
        ("web[[1-2]]", "", Kind.BAD_REQUEST, "a bracket too many or too few", "web[01-10,12]"),
        ("web[a-c]", "", Kind.BAD_REQUEST, "is no number and no range", "web[01-10,12]"),
        ("web[]", "", Kind.BAD_REQUEST, "is no number and no range", "web[01-10,12]"),
        ("web[3-1]", "", Kind.BAD_REQUEST, "'3-1' in 'web[3-1]' is no range", "the smaller number"),
        ("web[1-3/0]", "", Kind.BAD_REQUEST, "is no range", "the smaller number"),
        ("web[001-3]", "", Kind.BAD_REQUEST, "can't be read", ""),
        ("w[1-2][1-2]", "", Kind.BAD_REQUEST, "two brackets", ""),
        ("@", "", Kind.BAD_REQUEST, "'@' is no group", "@os:linux"),
        ("@@os", "", Kind.BAD_REQUEST, "'@@os' is no group", "@os:linux"),
        ("@web:", "", Kind.BAD_REQUEST, "is no group", "@os:linux"),
        ("@a:b:c", "", Kind.BAD_REQUEST, "is no group", "@os:linux"),
        ("@we*", "", Kind.BAD_REQUEST, "is no group", "@os:linux"),
        ("web01/../etc,a", "", Kind.BAD_REQUEST, "can't be a machine's name", "joined by"),
        ("%s%n,a", "", Kind.BAD_REQUEST, "can't be a machine's name", "joined by"),
        ("\u212a1,a", "", Kind.UNKNOWN_MACHINE, "no machine is called 'k1' or 'a'", ""),
        ("web\uff101,a", "", Kind.BAD_REQUEST, "can't be a machine's name", "joined by"),
        ("web01,d\u202eb1", "", Kind.BAD_REQUEST, r"'d\u202eb1' can't be", "joined by"),
        ("web01,\x1b[31mdb1", "", Kind.BAD_REQUEST, r"\x1b[31m", "web[01-10,12]"),
        ("a\x00b,c", "", Kind.BAD_REQUEST, r"'a\x00b' can't be", "joined by"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_with_a_target_is_told(
    world: World, target: str, exclude: str, kind: Kind, detail: str, hint: str
) -> None:
    await small_fleet(world)
    told = problem(world, target, exclude)
    assert told.kind is kind
    assert detail in told.detail
    assert hint in told.hint
    assert told.detail.isprintable()
    assert all(line.isprintable() for line in told.hint.splitlines())


@pytest_twisted.ensureDeferred
async def test_without_any_machine_a_target_says_how_one_joins(world: World) -> None:
    assert "clusteragent enroll" in problem(world, "all").hint
    assert "clusteragent enroll" in problem(world, "ws1").hint


HUGE = [
    "web[1-999999999]",
    "web[1-999999999999999999]",
    f"web[{'9' * 1000}]",
    "a[1-999]b[1-999]c[1-999]",
    "web[1-999999999/2]*",
    "@rack[1-999999999]",
    "web[" + "1," * 32000 + "1]",
    "a[1]" * 16000,
    "a1" * 32000,
    "all^" * 16000 + "all",
    "@web," * 13000 + "@web",
    "*," * 32000 + "*",
    "a*," * 21000 + "a*",
    "," * MAX_TARGET,
    "!" * MAX_TARGET,
    "[" * MAX_TARGET,
    "[]" * (MAX_TARGET // 2),
    "x[1-2" * 10000,
    "@" * MAX_TARGET,
    " " * MAX_TARGET,
    "\u202e" * MAX_TARGET,
    "web01," * 10000 + "wbe",
    "web[1-9999]," * 5000 + "web01",
    "*" * MAX_TARGET,
    "*a" * 32 + "b",
]


@pytest_twisted.ensureDeferred
async def test_no_target_takes_long_or_makes_much(world: World) -> None:
    await small_fleet(world)
    for target, exclude in [*((huge, "") for huge in HUGE), *(("web01", huge) for huge in HUGE if huge.strip())]:
        began = time.process_time()
        told = problem(world, target, exclude)
        assert time.process_time() - began < 2, target[:50]
        assert len(told.detail) + len(told.hint) < 2000, target[:50]
        assert told.kind in (Kind.BAD_REQUEST, Kind.UNKNOWN_MACHINE), target[:50]


def test_the_bounds_of_an_expression_hold_for_all_of_it() -> None:
    for word, most in (("a[1-100]", MAX_NAMES // 100), ("@a[1-2]", MAX_GROUPS // 2), ("a*", MAX_GLOBS)):
        assert len(read(",".join([word] * most))) == most
        with pytest.raises(ProblemError, match="at most"):
            read(",".join([word] * (most + 1)))


# -- the same as NodeSet, and as sets

_OPERANDS = {
    target: set(found.split())
    for target, exclude, found in MEANINGS
    if not exclude and not set(re.sub(r"\[.*?\]", "", target)) & set("!&^,")
}
_JOINED: dict[str, Callable[[set[str], set[str]], set[str]]] = {
    ",": set.union,
    "!": set.difference,
    "&": set.intersection,
    "^": set.symmetric_difference,
}
Parts = list[tuple[str, str]]
PARTS = st.lists(st.tuples(st.sampled_from(",!&^"), st.sampled_from(sorted(_OPERANDS))), min_size=1, max_size=8)


def written(parts: Parts) -> str:
    return "".join(f" {operator} {word}" for operator, word in parts)[2:]


def as_sets(parts: Parts) -> set[str]:
    """What an expression means, its operands being what they are known to mean."""
    result = _OPERANDS[parts[0][1]]
    for operator, word in parts[1:]:
        result = _JOINED[operator](result, _OPERANDS[word])
    return result


def found_by(world: World, target: str, exclude: str = "") -> set[str]:
    try:
        return {machine.name for machine in world.targets.resolve(target, exclude).machines}
    except ProblemError as error:
        assert error.problem.kind is Kind.EMPTY_TARGET
        return set()


@pytest_twisted.ensureDeferred
async def test_expressions_are_joined_as_sets_from_left_to_right(world: World) -> None:
    await small_fleet(world)

    @settings(max_examples=300)
    @given(PARTS, PARTS | st.none())
    def compare(target: Parts, exclude: Parts | None) -> None:
        expected = as_sets(target) - (as_sets(exclude) if exclude else set())
        assert found_by(world, written(target), written(exclude or [])) == expected

    compare()


def by_nodeset(world: World, expression: str) -> set[str]:
    """What NodeSet makes of a whole expression, groups and all."""
    sources = GroupSources(world.registry, world.fleet, world.groups, world.targeting.facts)
    return set(NodeSet(expression, resolver=sources.resolver([*SOURCES, "gpu"])))


@pytest_twisted.ensureDeferred
async def test_expressions_mean_what_nodeset_says(world: World) -> None:
    await small_fleet(world)

    @settings(max_examples=40)
    @given(PARTS.filter(lambda parts: not {"all", "@all", "*"} & {word for _, word in parts}))
    def compare(parts: Parts) -> None:
        assert found_by(world, written(parts)) == by_nodeset(world, written(parts).lower())

    compare()


@pytest_twisted.ensureDeferred
async def test_whatever_is_typed_gives_known_machines_or_a_problem(world: World) -> None:
    await small_fleet(world)

    @settings(max_examples=500)
    @given(st.one_of(st.text(max_size=60), st.text(alphabet="web01-[]@,!&^*?:/ d", max_size=40)), st.text(max_size=20))
    def try_it(target: str, exclude: str) -> None:
        try:
            resolved = world.targets.resolve(target, exclude)
        except ProblemError as error:
            assert error.problem.detail.isprintable()
            assert error.problem.kind in (
                *(Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET, Kind.BAD_REQUEST),
            )
        else:
            assert set(resolved.machines) <= set(world.registry.machines())
            assert len(set(resolved.machines)) == len(resolved.machines)

    try_it()


# -- machines that are new


@pytest_twisted.ensureDeferred
async def test_a_new_machine_is_part_of_nothing_until_it_is_named(world: World) -> None:
    await small_fleet(world)
    await join(world, "web04", approved_by="open")
    await come(world, "web04", LINUX)
    for target in ("all", "web*", "@online", "@os:linux", "@*", "all,@web", "@web^all"):
        assert "web04" not in meant(world, target).split(), target
    assert meant(world, "@new") == "web04"
    assert meant(world, "web04") == "web04"
    assert meant(world, "web[01,04]") == "web01 web04"
    assert meant(world, "web04,@web") == "web01 web02 web03 web04"
    assert meant(world, "web04&@os:linux") == "web04", "who names it means it"
    assert meant(world, "all!web04") == ALL
    assert world.targets.resolve("@new").named == frozenset()


@pytest_twisted.ensureDeferred
async def test_new_machines_are_excluded_like_any(world: World) -> None:
    await small_fleet(world)
    await join(world, "web04", approved_by="open")
    await come(world, "web04", LINUX)
    for exclude in ("web*", "@os:linux", "all", "@online", "@new"):
        assert "all are excluded" in problem(world, "web04", exclude).hint, exclude
        assert problem(world, f"web04!{exclude}").kind is Kind.EMPTY_TARGET


@pytest_twisted.ensureDeferred
async def test_a_target_of_new_machines_only_is_told_as_that(world: World) -> None:
    await join(world, "web04", "web05", approved_by="open")
    told = problem(world, "all")
    assert told.kind is Kind.EMPTY_TARGET
    assert "2 machines match, but nobody has named or accepted any yet" in told.hint
    assert "clusterd accept NAME" in told.hint
    assert problem(world, "web*").kind is Kind.EMPTY_TARGET, "there are machines whose names are like that"


@pytest_twisted.ensureDeferred
async def test_a_group_that_holds_a_new_machine_gives_it_once_it_is_accepted(world: World) -> None:
    await join(world, "web04", approved_by="open")
    await group(world, "web", "@new")
    assert "clusterd accept" in problem(world, "@web").hint
    await world.registry.accept("web04")
    assert meant(world, "@web") == "web04"


@pytest_twisted.ensureDeferred
async def test_it_is_told_which_new_machines_are_left_out(world: World) -> None:
    def left_out(target: str, exclude: str = "") -> LeftOut | None:
        return world.targets.resolve(target, exclude).left_out

    await small_fleet(world)
    assert left_out("all") is None, "there are none"
    await join(world, "web10", "web9", approved_by="open")
    await come(world, "web9", LINUX)
    for target in ("all", "web*", "web01,web*", "all!web01", "web*&@*"):
        assert left_out(target) == LeftOut(2, ("web9", "web10")), target
    assert left_out("@online") == left_out("@os:linux") == left_out("web*!web10") == LeftOut(1, ("web9",))
    assert left_out("all", "web9") == LeftOut(1, ("web10",)), "what is taken away would not be meant anyway"
    for target in ("web01", "web9", "web[9-10]", "@new", "db1,web[01-02]", "all&db1", "all!@new", "all,web9,web10"):
        assert left_out(target) is None, target
    assert left_out("all,web9") == LeftOut(1, ("web10",))
    world.targets.new_wait = False
    assert left_out("all") is None, "they are part of everything"


@pytest_twisted.ensureDeferred
async def test_of_thousands_that_are_left_out_the_first_are_named(world: World) -> None:
    await join(world, "web")
    await join(world, *(f"node{number}-{'x' * 40}" for number in range(2000)), approved_by="open")
    told = world.targets.resolve("all").left_out
    assert told is not None and told.count == 2000
    assert told.machines == tuple(f"node{number}-{'x' * 40}" for number in range(20))


# -- how long it takes


@pytest_twisted.ensureDeferred
async def test_five_thousand_machines_are_resolved_in_milliseconds(world: World) -> None:
    await join(world, *(f"node{number:04}" for number in range(5000)))
    await group(world, "half", "node[0000-2499]")
    ways = ["all", "@half", "node[0000-4999]", "node*!@half", "all&node[0000-1234]", "node0001,node0002"]
    longest = {way: min(_seconds(world, way) for _ in range(5)) for way in ways}
    assert max(longest.values()) < 0.5, longest
    assert longest["all"] < 0.05, "a few milliseconds, on an idle machine"
    assert min(_seconds(world, "node2500", 1000) for _ in range(3)) / 1000 < 0.0001, "it is on the path of every run"
    assert len(world.targets.resolve("all").machines) == 5000
    assert len(world.targets.resolve("node*!@half").machines) == 2500
    began = time.process_time()
    assert "did you mean node2500" in problem(world, "ndoe2500").hint
    assert time.process_time() - began < 0.5


def _seconds(world: World, target: str, times: int = 1) -> float:
    began = time.process_time()
    for _ in range(times):
        world.targets.resolve(target)
    return time.process_time() - began
