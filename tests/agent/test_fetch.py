"""Blobs over HTTPS into the agent's cache."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from clustersh.agent import fetch
from clustersh.agent.fetch import Abandoned, BlobFetcher
from clustersh.blobs import BlobError, BlobStore
from clustersh.rest_client import RestClient, Unreachable
from clustersh.trust.identity import Role
from clustersh.trust.tls import ClientPolicy, client_connection_creator
from clustersh.wire.jobs import BlobRef
from clustersh.wire.problems import Kind, ProblemError

from ..fake_coordinator import Answer, FakeCoordinator

ensure = pytest_twisted.ensureDeferred
CONTENT = bytes(range(256)) * 4000
BLOB = BlobRef(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
UUID = "01992f3e-0000-7000-8000-000000000000"


class Setting:
    def __init__(self, folder) -> None:
        self.answers = [Answer(CONTENT, kind="application/octet-stream")]
        self.coordinator = FakeCoordinator(folder / "ca", lambda asked: self.answers[0])
        own = self.coordinator.credentials(Role.AGENT, "ws1")
        policy = ClientPolicy(client_connection_creator(own.ca, own.key, own.certificate))
        self.client = RestClient(reactor, self.coordinator.address, policy)
        self.cache = BlobStore(folder / "blobs", 1 << 30)
        self.fetcher = BlobFetcher(reactor, lambda: self.client, self.cache, "ws1", deferToThread)

    def fetch(self, blob=BLOB, wanted=lambda: True) -> Deferred:
        return Deferred.fromCoroutine(self.fetcher.fetch(UUID, blob, wanted))

    async def stop(self) -> None:
        await self.client.close()
        await self.coordinator.stop()


@pytest.fixture
def setting(tmp_path):
    setting = Setting(tmp_path)
    yield setting
    pytest_twisted.blockon(Deferred.fromCoroutine(setting.stop()))


@ensure
async def test_a_blob_is_fetched_once_for_all_who_need_it(setting):
    await gatherResults([setting.fetch() for _ in range(3)])
    assert setting.cache.path(BLOB.sha256).read_bytes() == CONTENT
    assert [asked.path for asked in setting.coordinator.asked] == [f"/v1/jobs/ws1/{UUID}/blobs/{BLOB.sha256}"]
    await setting.fetch()
    assert len(setting.coordinator.asked) == 1


@ensure
@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1] + b"x", CONTENT[:-1]])
async def test_another_content_is_not_kept(setting, content):
    setting.answers = [Answer(content, kind="application/octet-stream")]
    with pytest.raises(BlobError):
        await setting.fetch()
    assert not setting.cache.has(BLOB.sha256)


@ensure
async def test_what_the_coordinator_refuses_is_told(setting):
    def refuse(_):
        raise ProblemError(Kind.UNKNOWN_BLOB, "no open job of yours names it")

    setting.coordinator.handler = refuse
    with pytest.raises(ProblemError, match="no open job"):
        await setting.fetch()


@ensure
async def test_a_fetch_that_nobody_wants_any_more_ends(setting):
    with pytest.raises(Abandoned):
        await setting.fetch(wanted=lambda: False)
    assert setting.coordinator.asked == []
    asked = []

    def only_at_first() -> bool:
        asked.append(1)
        return len(asked) == 1

    with pytest.raises(Abandoned):
        await setting.fetch(wanted=only_at_first)
    assert not setting.cache.has(BLOB.sha256)


@ensure
async def test_an_unreachable_coordinator_is_tried_three_times(setting, monkeypatch):
    monkeypatch.setattr(fetch, "_PAUSE_S", 0.0)
    tried = []

    async def fail(method, path, collect):
        tried.append(path)
        raise Unreachable("no route", sent=False)

    monkeypatch.setattr(setting.client, "stream", fail)
    with pytest.raises(Unreachable):
        await setting.fetch()
    assert len(tried) == 3
