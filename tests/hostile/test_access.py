"""Certificates that should not open anything, and keys that lost their trust: cut off within a second."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.credentials import Credentials
from clustersh.trust.identity import SERVER_NAME, Identity, Role
from tests.faults.services import user_home
from tests.hostile.attackers import (
    Mallory,
    address_of,
    call,
    log_lines,
    make_mallory,
    start_job,
    still_serves,
    tls_context,
    tls_socket,
    until_logged,
)
from tests.real.programs import PATIENCE_S, Cluster, Home, eventually, log_in

WITHIN_S = 1.0


def another_client(cluster: Cluster, folder: Path, name: str) -> Home:
    home = user_home(folder, name.replace("@", "-"))
    log_in(cluster.coordinator, home, cluster.address, name)
    return home


def seconds_until_eof(connection: socket.socket) -> float:
    began = time.monotonic()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(1 << 16):
            pass
    return time.monotonic() - began


def test_revoking_a_client_cuts_what_it_follows_within_a_second(cluster: Cluster, tmp_path: Path) -> None:
    eve = another_client(cluster, tmp_path, "eve@box")
    uuid = cluster.sh("run", "ws1", "--detach", "while :; do echo tick; sleep 0.1; done").out.strip()
    cluster.until_job(uuid, "running")
    folder = eve.path / "client"
    with (
        tls_socket(cluster, folder) as following,
        tls_socket(cluster, folder) as idle,
        tls_socket(cluster, folder) as one,
    ):
        for connection, request in (
            (following, f"GET /v1/jobs/ws1/{uuid}/output?follow=true"),
            (idle, "GET /v1/whoami"),
            (one, f"GET /v1/runs/{uuid}"),
        ):
            connection.sendall(f"{request} HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\n\r\n".encode())
        assert b"200 OK" in following.recv(1 << 16)
        assert b"200 OK" in idle.recv(1 << 16)
        began = time.monotonic()
        revoking = cluster.coordinator.start("clusterd", "revoke", "eve@box")
        reader = threading.Thread(target=seconds_until_eof, args=(following,))
        reader.start()
        until_revoked = eventually(lambda: _revoked_at(cluster, "eve@box"), what="the revocation in the ledger")
        for connection in (idle, one):
            seconds_until_eof(connection)
        reader.join(PATIENCE_S)
        assert not reader.is_alive()
        cut_s = time.monotonic() - until_revoked
        assert revoking.wait(PATIENCE_S) == 0
    print(f"revoking cut three connections {cut_s:.2f} s after its record ({time.monotonic() - began:.2f} s in all)")
    assert cut_s < WITHIN_S
    again = eve.sh("machines")
    assert again.status == 125 and "revoked" in again.err and "login --again" in again.err, again
    assert cluster.sh("cancel", "ws1", uuid).status == 0


def _revoked_at(cluster: Cluster, name: str) -> float:
    files = (cluster.coordinator.path / "coordinator" / "ledger").glob("*.jsonl")
    known = any(f'"revoked","name":"{name}"' in file.read_text() for file in files)
    return time.monotonic() if known else 0.0


def test_a_revoked_client_that_follows_a_run_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    eve = another_client(cluster, tmp_path, "eve2@box")
    follower = eve.open("clustersh", "run", "ws1", "--follow", "echo began; sleep 60")
    assert follower.stdout is not None and follower.stdout.readline() == b"began\n"
    assert cluster.coordinator.run("clusterd", "revoke", "eve2@box").status == 0
    _, err = follower.communicate(timeout=PATIENCE_S)
    assert follower.returncode in (123, 125), err
    assert b"revoked" in err and b"Traceback" not in err, err
    job = cluster.sh("history", "--json").json["jobs"][0]
    cluster.sh("cancel", "ws1", job["uuid"])


@pytest.mark.parametrize("said_hello", [True, False])
def test_forgetting_a_machine_cuts_its_link_within_a_second(cluster: Cluster, tmp_path: Path, said_hello: bool) -> None:
    name = f"gone-{said_hello}".lower()
    gone = make_mallory(cluster, tmp_path, name)
    linked = gone.link()
    job = None
    if said_hello:
        linked.hello()
        job = start_job(cluster, linked, name)
    waiter = threading.Thread(target=linked.until_closed)
    waiter.start()
    assert cluster.coordinator.run("clusterd", "forget", name).status == 0
    began = time.monotonic()
    waiter.join(PATIENCE_S)
    assert time.monotonic() - began < WITHIN_S
    if job is not None:
        assert cluster.until_job(job.uuid, "lost")["reason"]
    refused = gone.link()
    assert refused.status in (401, 403)
    refused.close()
    answer = call(cluster, gone.folder, "GET", "/v1/machines")
    assert (answer.status, answer.problem) == (403, "untrusted")


@pytest.fixture
def authority(cluster: Cluster) -> Authority:
    return Authority.load(cluster.coordinator.path / "coordinator")


def forged(folder: Path, authority: Authority, role: Role, *, at: datetime | None = None, **lifetime: Any) -> Path:
    """Save credentials that the cluster's own CA signed, though the coordinator never let that key in."""
    key = keys.generate()
    identity = Identity(role, "forger@box", "forged-id")
    certificate = authority.issue(identity, key.public_key(), at or datetime.now(UTC), **lifetime)
    Credentials(key, certificate, authority.certificate).save(folder)
    return folder


def test_an_expired_certificate_is_refused_and_counted(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    old = datetime.now(UTC) - timedelta(hours=2)
    folder = forged(tmp_path / "old", authority, Role.FRONTEND, at=old, lifetime=timedelta(hours=1))
    for _ in range(5):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            call(cluster, folder, "GET", "/v1/whoami")
    assert len(until_logged(cluster, "certificate verify failed")) == 1
    still_serves(cluster)


def test_a_certificate_that_is_not_valid_yet_is_refused(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    folder = forged(tmp_path / "new", authority, Role.FRONTEND, at=datetime.now(UTC) + timedelta(days=3))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        call(cluster, folder, "GET", "/v1/whoami")


@pytest.mark.parametrize("role", [Role.FRONTEND, Role.AGENT, Role.ADMIN])
def test_a_signed_certificate_whose_key_was_never_let_in_opens_nothing(
    cluster: Cluster, authority: Authority, tmp_path: Path, role: Role
) -> None:
    folder = forged(tmp_path / "forged", authority, role)
    for path in ("/v1/whoami", "/v1/admin/clients", "/v1/link"):
        answer = call(cluster, folder, "GET", path)
        assert (answer.status, answer.problem) == (403, "untrusted")


def test_another_cas_certificate_ends_the_handshake(cluster: Cluster, tmp_path: Path) -> None:
    other = Authority.create(tmp_path, datetime.now(UTC))
    folder = forged(tmp_path / "other", other, Role.ADMIN)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        call(cluster, folder, "GET", "/v1/whoami")


def test_each_role_opens_its_own_doors_only(cluster: Cluster, mallory: Mallory) -> None:
    admin = cluster.coordinator.path / "coordinator" / "admin"
    client = cluster.client.path / "client"
    allowed = {
        "/v1/admin/clients": {admin},
        "/v1/machines": {admin, client},
        "/v1/link": {mallory.folder},
    }
    for path, folders in allowed.items():
        for folder in (admin, client, mallory.folder):
            answer = call(cluster, folder, "GET", path)
            if folder in folders:
                assert answer.status in (200, 400, 426), (path, folder, answer)
            else:
                assert (answer.status, answer.problem) == (403, "wrong-role"), (path, folder, answer)
        nobody = call(cluster, None, "GET", path)
        assert (nobody.status, nobody.problem) == (401, "no-certificate")
    assert log_lines(cluster, "wrong role")


@contextlib.contextmanager
def impostor(folder: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A server that shows the certificate in *folder*; yields its address and what clients sent it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                    connection.settimeout(5)
                    got.append(connection.recv(1000))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", got
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("whose", ["a client's certificate", "another CA's server"])
def test_no_program_talks_to_a_server_that_is_not_the_coordinator(cluster: Cluster, tmp_path: Path, whose: str) -> None:
    victim = another_client(cluster, tmp_path, f"victim{len(whose)}@box")
    folder = cluster.client.path / "client"
    if whose == "another CA's server":
        other = Authority.create(tmp_path / "other", datetime.now(UTC))
        key = keys.generate()
        certificate = other.issue_server(key.public_key(), datetime.now(UTC))
        folder = tmp_path / "server"
        Credentials(key, certificate, other.certificate).save(folder)
    with impostor(folder) as (address, got):
        login = victim.path / "client" / "login.json"
        login.write_text(login.read_text().replace(cluster.address, address))
        for words in (("run", "ws1", "echo secret"), ("machines",), ("run", "--follow", "ws1", "echo secret")):
            done = victim.sh(*words)
            assert done.status == 125, done
            assert "Traceback" not in done.err
            assert "ERROR" in done.err and "hint" in done.err, done.err
    assert not any(b"secret" in data or b"GET" in data for data in got), got


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_tls_below_1_3_is_refused(cluster: Cluster, version: ssl.TLSVersion) -> None:
    context = tls_context(None, cluster.client.path / "client" / "ca.pem")
    context.maximum_version = version
    with socket.create_connection(address_of(cluster), PATIENCE_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=SERVER_NAME)
    for flag in ("-tls1_2", "-tls1_1", "-tls1"):
        done = subprocess.run(
            ["openssl", "s_client", flag, "-connect", cluster.address], stdin=subprocess.DEVNULL, capture_output=True
        )
        assert b"Cipher is (NONE)" in done.stdout or done.returncode != 0
    good = subprocess.run(
        ["openssl", "s_client", "-tls1_3", "-connect", cluster.address], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert b"TLSv1.3" in good.stdout
