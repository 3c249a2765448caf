"""The gate's rules that no loopback connection can show: addresses."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

import pytest
from twisted.internet.task import Clock

from clustersh.coordinator.addresses import IpAddress, plain_address
from clustersh.coordinator.callers import Gate
from clustersh.coordinator.refusals import MANY, MAX_KINDS, SUMMARY_S, Refusal, Refusals
from clustersh.trust.identity import Identity, Role
from clustersh.wire.problems import Kind, ProblemError

from .conftest import TrustedList


@dataclass
class Connection:
    peer: IpAddress
    local: IpAddress
    secure: bool = True
    certified: tuple[Identity, str] | None = (Identity(Role.ADMIN, "admin", "a"), "f" * 64)


def connection(peer: str, local: str = "192.168.1.1") -> Connection:
    return Connection(plain_address(peer), plain_address(local))


def gate(*networks: str) -> Gate:
    allowed = [ip_network(network) for network in networks]
    refusals = Refusals(Clock(), lambda refusal: None)
    return Gate(TrustedList(), refusals, admin_from=allowed, strangers_from=allowed)


NEAR = ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.1.1"]
NEAR += ["fe80::1", "fe80::1%eth0", "100.64.0.1", "100.127.255.255", "fc00::1", "fdff::1", "::ffff:192.168.1.1"]
FAR = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "100.63.255.255", "192.169.0.1", "169.253.1.1", "0.0.0.0"]
FAR += ["2001:db8::1", "fec0::1", "::", "::ffff:8.8.8.8", "203.0.113.9", "224.0.0.1"]


@pytest.mark.parametrize("address", NEAR)
def test_near_strangers_are_answered(address: str) -> None:
    gate().admit_stranger(connection(address))


@pytest.mark.parametrize("address", FAR)
def test_far_strangers_get_the_key_that_would_let_them(address: str) -> None:
    with pytest.raises(ProblemError) as caught:
        gate().admit_stranger(connection(address))
    assert caught.value.problem.kind is Kind.ADDRESS_NOT_ALLOWED
    assert f'[enrollment] allow = ["{plain_address(address)}"]' in caught.value.problem.hint


@pytest.mark.parametrize("address", ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::7"])
def test_more_networks_may_be_allowed(address: str) -> None:
    gate("203.0.113.0/24", "2001:db8::/32").admit_stranger(connection(address))


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("192.168.1.1", "192.168.1.1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
    ],
)
def test_an_admin_calls_from_the_own_host(peer: str, local: str) -> None:
    assert gate().admit(connection(peer, local), {Role.ADMIN}).identity.role is Role.ADMIN


def test_an_admin_from_elsewhere_is_told_the_key() -> None:
    elsewhere = connection("192.168.1.2")
    with pytest.raises(ProblemError) as caught:
        gate().admit(elsewhere, {Role.ADMIN})
    assert caught.value.problem.kind is Kind.ADDRESS_NOT_ALLOWED
    assert '[coordinator] admin_from = ["192.168.1.2"]' in caught.value.problem.hint
    assert gate("192.168.1.0/24").admit(elsewhere, {Role.ADMIN}).address == "192.168.1.2"


def test_a_flood_of_refusals_is_told_once_and_then_counted() -> None:
    clock, told = Clock(), list[Refusal]()
    refusals = Refusals(clock, told.append)
    for _ in range(1000):
        refusals.note("10.0.0.1", "untrusted")
    assert told == [Refusal("10.0.0.1", "untrusted", 1, again=False)]
    clock.advance(SUMMARY_S)
    assert told[1:] == [Refusal("10.0.0.1", "untrusted", 999, again=True)]
    clock.advance(SUMMARY_S)
    assert len(told) == 2
    assert clock.getDelayedCalls() == []
    refusals.note("10.0.0.1", "untrusted")
    assert len(told) == 3


def test_a_flood_from_many_addresses_is_bounded() -> None:
    clock, told = Clock(), list[Refusal]()
    refusals = Refusals(clock, told.append)
    for number in range(10_000):
        refusals.note(f"10.0.{number // 256}.{number % 256}", "untrusted")
    assert len(told) == MAX_KINDS
    refusals.stop()
    assert told[MAX_KINDS:] == [Refusal(MANY, "untrusted", 10_000 - MAX_KINDS, again=True)]
    assert clock.getDelayedCalls() == []
