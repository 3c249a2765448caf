"""Machines that show a join token: who is let in, who isn't, and what that tells to whom."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from clustersh.coordinator.addresses import plain_address
from clustersh.coordinator.pairing import WRONG_BURST
from clustersh.coordinator.records import Adoption, Enrolled
from clustersh.trust.authority import Authority
from clustersh.trust.identity import Role
from clustersh.trust.pairing import transcript_hash
from clustersh.trust.tokens import JoinToken, make_token
from clustersh.wire.pairing import PairOffer, PairProgress, PairReveal, PairStatus, TokenProof
from clustersh.wire.problems import Kind, ProblemError

from .test_pairing import HERE, Asker, Desk, authority, kind_of, refusal

__all__ = ["authority"]
ensure = pytest_twisted.ensureDeferred


@pytest.fixture
def desk(authority: Authority) -> Desk:
    return Desk(authority.certificate_der, policy="token")


class Machine(Asker):
    """`clusteragent enroll`, with a token or without."""

    def __init__(self, name: str = "ws1", key: Any = None) -> None:
        super().__init__(name, Role.AGENT, key)

    def transcript(self, offer: PairOffer) -> bytes:
        return transcript_hash(self.role, self.request, offer.ca, self.nonce, offer.nonce)

    def shows(self, token: JoinToken, offer: PairOffer) -> PairReveal:
        return PairReveal(self.nonce, TokenProof(token.id, token.proof(self.transcript(offer))))

    async def enroll(self, desk: Desk, token: JoinToken | None, address: Any = HERE) -> PairProgress:
        offer = desk.pairings.start(self.start(), address)
        progress = await desk.pairings.reveal(offer.id, self.shows(token, offer) if token else self.reveal)
        if token is not None:
            assert progress.token_proof == token.answer(self.transcript(offer))
        return progress


async def a_token(desk: Desk, uses: int = 1, ttl_s: float = 60) -> JoinToken:
    return (await desk.tokens.create(ttl_s, uses))[0]


def enrolled(desk: Desk) -> list[tuple[str, str, str]]:
    records = [record for record in desk.ledger.records if isinstance(record, Enrolled)]
    return [(record.name, record.approved_by, record.token) for record in records]


@ensure
async def test_a_token_lets_a_machine_in_and_is_recorded(desk: Desk) -> None:
    token = await a_token(desk)
    progress = await Machine().enroll(desk, token)
    assert (progress.status, progress.certificate) == (PairStatus.APPROVED, b"certificate of ws1")
    assert not progress.needs_token
    assert enrolled(desk) == [("ws1", "token", token.id)]
    assert token.secret.hex() not in repr(desk.ledger.records)


@ensure
async def test_without_one_a_machine_is_told_so_and_may_be_approved_after_all(desk: Desk) -> None:
    machine = Machine()
    offer = desk.pairings.start(machine.start(), HERE)
    progress = await desk.pairings.reveal(offer.id, machine.reveal)
    assert (progress.status, progress.needs_token) == (PairStatus.PENDING, True)
    await desk.approve(machine.code_for(offer).code)
    progress = await desk.pairings.progress(offer.id, 0)
    assert (progress.status, progress.needs_token) == (PairStatus.APPROVED, False)
    assert desk.register.approved_by == ["admin"]


@ensure
async def test_the_token_may_follow_while_the_request_waits(desk: Desk) -> None:
    token, machine = await a_token(desk), Machine()
    offer = desk.pairings.start(machine.start(), HERE)
    await desk.pairings.reveal(offer.id, machine.reveal)
    assert (await desk.pairings.reveal(offer.id, machine.shows(token, offer))).status is PairStatus.APPROVED


@ensure
async def test_a_client_needs_an_approval_token_or_not(desk: Desk) -> None:
    token, asker = await a_token(desk), Asker()
    offer = desk.pairings.start(asker.start(), HERE)
    proof = token.proof(transcript_hash(asker.role, asker.request, offer.ca, asker.nonce, offer.nonce))
    progress = await desk.pairings.reveal(offer.id, PairReveal(asker.nonce, TokenProof(token.id, proof)))
    assert (progress.status, progress.needs_token, progress.certificate) == (PairStatus.PENDING, False, b"")
    assert desk.tokens.list()[0].used == 0


@ensure
async def test_a_proof_that_was_read_on_the_way_is_good_for_nothing_else(desk: Desk) -> None:
    """The man in the middle has a key of his own, and everything that he saw."""
    token, victim, thief = await a_token(desk, uses=5), Machine("ws1"), Machine("ws1")
    seen = desk.pairings.start(victim.start(), HERE)
    proof = victim.shows(token, seen).token
    for name, machine in (("another key", thief), ("another nonce", Machine("ws1", victim.key))):
        offer = desk.pairings.start(machine.start(), HERE)
        refused = await refusal(desk.pairings.reveal(offer.id, PairReveal(machine.nonce, proof)))
        assert kind_of(refused) is Kind.WRONG_TOKEN, name
    assert enrolled(desk) == []
    assert (await desk.pairings.reveal(seen.id, PairReveal(victim.nonce, proof))).status is PairStatus.APPROVED
    again = await desk.pairings.reveal(seen.id, PairReveal(victim.nonce, proof))
    assert again.certificate == b"certificate of ws1", "replayed, it brings the victim's certificate once more"
    assert desk.tokens.list()[0].used == 1


@ensure
async def test_of_two_machines_that_race_for_one_use_exactly_one_is_let_in(desk: Desk) -> None:
    token = await a_token(desk)
    gate = desk.register.wait = Deferred()
    first = Deferred.fromCoroutine(Machine("ws1").enroll(desk, token))
    refused = await refusal(Machine("ws2").enroll(desk, token))
    assert kind_of(refused) is Kind.WRONG_TOKEN and "used up" in refused.problem.detail
    gate.callback(None)
    assert (await first).status is PairStatus.APPROVED
    assert enrolled(desk) == [("ws1", "token", token.id)]
    assert kind_of(await refusal(Machine("ws3").enroll(desk, token))) is Kind.WRONG_TOKEN


@ensure
async def test_a_use_that_came_to_nothing_is_not_counted(desk: Desk) -> None:
    token = await a_token(desk)
    desk.register.failure = ProblemError(Kind.STORAGE, "the disk is full")
    machine = Machine()
    assert kind_of(await refusal(machine.enroll(desk, token))) is Kind.STORAGE
    assert (await machine.enroll(desk, token)).status is PairStatus.APPROVED


@ensure
async def test_a_machine_that_is_in_already_uses_no_token_up(desk: Desk) -> None:
    """As when the answer was lost, or the installation is done again."""
    token, machine = await a_token(desk), Machine()
    await machine.enroll(desk, token)
    desk.clock.advance(61)
    assert (await machine.enroll(desk, token)).status is PairStatus.APPROVED
    assert (await machine.enroll(desk, None)).status is PairStatus.APPROVED
    assert desk.register.approved_by == ["token", "same key", "same key"]


@pytest.mark.parametrize("end", ["expired", "revoked"])
@ensure
async def test_a_token_that_has_ended_is_refused_by_its_reason(desk: Desk, end: str) -> None:
    token = await a_token(desk)
    if end == "expired":
        desk.clock.advance(60)
    else:
        await desk.tokens.revoke(token.id)
    refused = await refusal(Machine().enroll(desk, token))
    assert kind_of(refused) is Kind.WRONG_TOKEN
    assert ("ended at 2026-11-20T12:01:00" if end == "expired" else "was revoked") in refused.problem.detail
    assert refused.problem.hint == "get another, on the coordinator: clusterd token create"
    assert desk.pairings.pending() == [], "it waits for nobody"


@ensure
async def test_a_token_that_an_older_backup_does_not_know(desk: Desk) -> None:
    """Made after the backup by the same key: its proof holds, and still it lets nobody in."""
    refused = await refusal(Machine().enroll(desk, make_token(b"k" * 32, "0123456789ab")))
    assert kind_of(refused) is Kind.WRONG_TOKEN
    assert refused.problem.detail == "the coordinator knows no token 0123456789ab (any more)"


@ensure
async def test_wrong_tokens_are_counted_and_limited_for_each_address(desk: Desk) -> None:
    right = await a_token(desk, uses=9, ttl_s=3600)
    wrong = make_token(b"guess".ljust(32), right.id)
    kinds = []
    for _ in range(int(WRONG_BURST) + 2):
        desk.clock.advance(1)  # starts are limited, too
        kinds.append(kind_of(await refusal(Machine().enroll(desk, wrong))))
    assert kinds == [Kind.WRONG_TOKEN] * (int(WRONG_BURST) + 1) + [Kind.RATE_LIMITED]
    limited = await refusal(Machine().enroll(desk, right))
    assert kind_of(limited) is Kind.RATE_LIMITED, "nobody learns in that time that a guess was right"
    assert enrolled(desk) == []
    other = await Machine().enroll(desk, right, plain_address("192.168.1.8"))
    assert other.status is PairStatus.APPROVED
    desk.clock.advance(60)
    assert (await Machine("ws2").enroll(desk, right)).status is PairStatus.APPROVED
    told = [(refused.address, refused.reason) for refused in desk.refused if not refused.again]
    assert ("192.168.1.7", "wrong join token") in told
    assert ("192.168.1.7", "too many wrong join tokens") in told
    assert wrong.secret.hex() not in repr(desk.refused) + repr(desk.ledger.records)


@ensure
async def test_a_wrong_token_ends_the_request_so_each_try_is_a_start(desk: Desk) -> None:
    machine = Machine()
    offer = desk.pairings.start(machine.start(), HERE)
    wrong = PairReveal(machine.nonce, TokenProof("0123456789ab", b"x" * 32))
    assert kind_of(await refusal(desk.pairings.reveal(offer.id, wrong))) is Kind.WRONG_TOKEN
    assert kind_of(await refusal(desk.pairings.reveal(offer.id, machine.reveal))) is Kind.UNKNOWN_PAIRING


@pytest.mark.parametrize(("policy", "status"), [("open", PairStatus.APPROVED), ("approve", PairStatus.PENDING)])
@ensure
async def test_where_no_token_is_asked_for_one_proves_the_coordinator_and_is_not_used_up(
    authority: Authority, policy: str, status: PairStatus
) -> None:
    desk = Desk(authority.certificate_der, policy=policy)
    token = await a_token(desk)
    progress = await Machine().enroll(desk, token)
    assert (progress.status, progress.needs_token) == (status, False)
    assert desk.tokens.list()[0].used == 0


@ensure
async def test_a_taken_name_costs_no_use(desk: Desk) -> None:
    token = await a_token(desk)
    one, other = Machine("ws1"), Machine("ws1")
    offers = [desk.pairings.start(machine.start(), HERE) for machine in (one, other)]
    await desk.pairings.reveal(offers[0].id, one.reveal)
    await desk.approve(one.code_for(offers[0]).code)
    refused = await refusal(desk.pairings.reveal(offers[1].id, other.shows(token, offers[1])))
    assert kind_of(refused) is Kind.NAME_TAKEN
    assert (await Machine("ws2").enroll(desk, token)).status is PairStatus.APPROVED


# -- machines that another one carries

ADOPTION = Adoption("id of gate", "gate", "root@ws1", "joshua@mba", "client-1")


@pytest.mark.parametrize("policy", ["open", "token", "approve"])
@ensure
async def test_what_was_asked_for_is_let_in_whatever_the_policy_is(authority: Authority, policy: str) -> None:
    desk = Desk(authority.certificate_der, policy=policy)
    token = await a_token(desk)
    with desk.pairings.adopting(token.id, "ws1", ADOPTION):
        assert (await Machine().enroll(desk, token)).status is PairStatus.APPROVED
    assert enrolled(desk) == [("ws1", "adoption", token.id)]
    assert desk.register.adopted == [ADOPTION]


@pytest.mark.parametrize("policy", ["open", "token", "approve"])
@ensure
async def test_the_token_of_an_adoption_is_good_for_its_name_and_one_use(authority: Authority, policy: str) -> None:
    desk = Desk(authority.certificate_der, policy=policy)
    token = await a_token(desk)
    with desk.pairings.adopting(token.id, "ws1", ADOPTION):
        assert kind_of(await refusal(Machine("ws2").enroll(desk, token))) is Kind.WRONG_TOKEN
        await Machine().enroll(desk, token)
        assert kind_of(await refusal(Machine("ws1").enroll(desk, token))) in (Kind.NAME_TAKEN, Kind.WRONG_TOKEN)
    assert enrolled(desk) == [("ws1", "adoption", token.id)]


@ensure
async def test_after_an_adoption_its_token_lets_nobody_in_without_an_approval(authority: Authority) -> None:
    desk = Desk(authority.certificate_der, policy="approve")
    token = await a_token(desk)
    with desk.pairings.adopting(token.id, "ws1", ADOPTION):
        pass
    assert (await Machine().enroll(desk, token)).status is PairStatus.PENDING
    assert enrolled(desk) == []
