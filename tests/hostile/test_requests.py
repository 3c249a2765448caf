"""Clients and strangers whose requests never end, never begin, or are too many: refused, bounded, nobody else waits."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.hostile.attackers import Mallory, address_of, call, still_serves, tls_socket, watched
from tests.real.programs import PATIENCE_S, Cluster

SILENT = 2_500
ELSEWHERE = ("127.0.0.2", 0)
"""Where attackers connect from; what counts each address by itself must not count them with the others."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """The attacker's own limit must not be what protects the coordinator."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _plain(cluster: Cluster) -> socket.socket:
    return socket.create_connection(address_of(cluster), PATIENCE_S, ELSEWHERE)


def _read_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := connection.recv(1 << 16):
            data += piece
    return data


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        connection.sendall(data)


@pytest.mark.parametrize(
    "first", [b"", b"\x16", b"G", b"\x16\x03\x01\x02\x00"], ids=["nothing", "tls", "http", "hello"]
)
def test_thousands_of_connections_that_send_next_to_nothing_keep_nobody_out(cluster: Cluster, first: bytes) -> None:
    with watched(cluster, f"{SILENT} connections that send {first!r}") as seen, contextlib.ExitStack() as open_ones:
        for _ in range(SILENT):
            with contextlib.suppress(ConnectionError):  # turned away: too many from there
                _send(open_ones.enter_context(_plain(cluster)), first)
        still_serves(cluster)
    assert seen.grown_mib < 256
    assert seen.slowest_s < 5


def test_a_connection_that_sends_nothing_is_closed(cluster: Cluster) -> None:
    with _plain(cluster) as silent:
        assert _read_all(silent) == b""


def test_requests_that_never_finish_keep_nobody_out(cluster: Cluster) -> None:
    folder = cluster.client.path / "client"
    with watched(cluster, "100 unfinished requests") as seen, contextlib.ExitStack() as open_ones:
        for number in range(100):
            connection = open_ones.enter_context(tls_socket(cluster, folder))
            if number % 2:
                connection.sendall(b"GET /v1/machines HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            else:
                connection.sendall(
                    b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Idempotency-Key: k\r\nContent-Length: 1000000\r\n\r\n{"
                )
        still_serves(cluster)
    assert seen.grown_mib < 48
    assert seen.slowest_s < 5


@pytest.mark.parametrize("plain", [True, False], ids=["a stranger", "a client"])
def test_huge_headers_are_cut_off(cluster: Cluster, plain: bool) -> None:
    with watched(cluster, "64 MiB of headers") as seen:
        for head in (b"X-Long: " + b"x" * (8 << 20), b"".join(b"X-%d: y\r\n" % n for n in range(500_000))):
            connection = _plain(cluster) if plain else tls_socket(cluster, cluster.client.path / "client")
            with connection:
                _send(connection, b"GET /health HTTP/1.1\r\nHost: x\r\n" + head)
                assert _read_all(connection).split(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"")
    assert seen.grown_mib < 24
    assert seen.slowest_s < 5


BODIES = [
    ("POST", "/pair", "application/json", True),
    ("POST", "/v1/runs", "application/json", False),
    ("PUT", "/v1/jobs/ws1/00000000/stdin", "application/octet-stream", False),
]


@pytest.mark.parametrize(("method", "path", "kind", "plain"), BODIES)
def test_an_endless_body_is_refused_with_a_reason(
    cluster: Cluster, method: str, path: str, kind: str, plain: bool
) -> None:
    with watched(cluster, f"an endless body to {path}") as seen:
        connection = _plain(cluster) if plain else tls_socket(cluster, cluster.client.path / "client")
        with connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nIdempotency-Key: k\r\n"
            _send(connection, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            piece = b"%x\r\n" % (1 << 16) + b" " * (1 << 16) + b"\r\n"
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for _ in range(2_000):
                    connection.sendall(piece)
            answer = _read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        announced = call(
            cluster,
            None if plain else cluster.client.path / "client",
            method,
            path,
            headers={"Content-Type": kind, "Idempotency-Key": "k", "Content-Length": str(1 << 40)},
            plain=plain,
        )
        assert (announced.status, announced.problem) == (413, "too-large")
    assert seen.grown_mib < 24
    assert seen.slowest_s < 5


def test_a_blob_longer_than_announced_or_over_the_quota_is_refused(cluster: Cluster) -> None:
    folder = cluster.client.path / "client"
    name = "0" * 64
    huge = call(cluster, folder, "PUT", f"/v1/blobs/{name}", headers={"Content-Length": str(1 << 50)})
    assert (huge.status, huge.problem) == (413, "too-large")
    lying = call(cluster, folder, "PUT", f"/v1/blobs/{name}", b"not what its name says")
    assert (lying.status, lying.problem) == (400, "bad-request")
    for odd in ("..%2f..%2fca-key.pem", "A" * 64, "0" * 63, "%00" * 64):
        assert call(cluster, folder, "PUT", f"/v1/blobs/{odd}", b"x").status in (400, 404)
    left = cluster.coordinator.path / "coordinator" / "blobs" / "incoming"
    assert list(left.iterdir()) == []


ODD = {
    "no request line": b"\r\n\r\n\r\n",
    "no http": b"\x00\x01\x02\x03" * 100 + b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a proxy's words": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "two lengths": b"POST /pair HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": b"POST /pair HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /pair HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "an odd chunk": b"POST /pair HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bad path": b"GET /%ff%fe/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path with a line": b"GET /health%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: x\r\n\r\n",
    "a host that steers": b"GET /health HTTP/1.1\r\nHost: \x1b[2J\x07evil\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", ODD.values(), ids=ODD.keys())
def test_what_is_no_request_gets_no_more_than_an_error(cluster: Cluster, request_bytes: bytes) -> None:
    with _plain(cluster) as connection:
        connection.settimeout(15)
        _send(connection, request_bytes)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        answer = _read_all(connection)
    assert b"X-Injected" not in answer.partition(b"\r\n\r\n")[0]
    assert b"Traceback" not in answer and b"\x1b" not in answer
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"403", b"404", b"405", b"200"), answer[:300]
    assert "Traceback" not in cluster.coordinator.log.read_text()


QUERIES = [
    "/v1/jobs?limit=-1",
    "/v1/jobs?before=%00",
    "/v1/jobs?status=root",
    "/v1/jobs?machine=" + "x" * 10_000,
    "/v1/jobs?" + "&".join(f"a{n}=1" for n in range(1_000)),
    "/v1/jobs?machine=%ff%fe",
    "/v1/runs/%F0%9F%92%A9",
    "/v1/runs/........",
    "/v1/runs/' OR 1=1 --".replace(" ", "%20"),
    "/v1/jobs/ws1/%2e%2e%2f/output?offset=1e9",
    "/v1/jobs/ws1/00000000/output?stream=everything",
    "/v1/jobs/ws1/00000000-0000-7000-8000-000000000000/blobs/" + "0" * 64,
]


@pytest.mark.parametrize("path", QUERIES)
def test_a_query_that_cant_be_is_a_problem_document(cluster: Cluster, path: str) -> None:
    answer = call(cluster, cluster.client.path / "client", "GET", path)
    assert answer.status in (400, 403, 404), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content)["type"] not in ("", "internal")


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"{",
        b"[]" * 100,
        b"[" * 100_000,
        json.dumps({"target": "ws1", "command": {"shell": "x"}, "timeout_s": -1}).encode(),
        json.dumps({"target": "ws1", "command": {"shell": "x", "argv": ["y"]}}).encode(),
        json.dumps({"target": "ws1", "command": {"shell": "\ud800"}}).encode(),
        json.dumps({"target": "ws1", "command": {"argv": ["a\0b"]}}).encode(),
        json.dumps({"target": "ws1", "command": {"shell": "x"}, "env": {"A=B": "c"}}).encode(),
        json.dumps({"target": "ws1", "command": {"shell": "x"}, "env": {"CLUSTERSH_JOB": "c"}}).encode(),
        json.dumps({"target": "ws1", "command": {"shell": "x"}, "cwd": "\0"}).encode(),
        b'{"target": "ws1", "command": {"shell": "x"}, "timeout_s": 1e999}',
        b'{"target": "ws1", "command": {"shell": "x"}, "timeout_s": NaN}',
        b'{"target": "ws1", "command": {"shell": "x"}, "limit_bytes": 99999999999999999999999}',
        b'{"target": "ws1", "command": {"shell": "\xff"}}',
        json.dumps({"target": "ws1", "command": {"script": {"sha256": "../../etc/passwd", "size": 1}}}).encode(),
    ],
)
def test_a_run_that_cant_be_is_refused_and_nothing_runs(cluster: Cluster, asked: bytes) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": os.urandom(8).hex(), "Prefer": "wait=5"}
    answer = call(cluster, cluster.client.path / "client", "POST", "/v1/runs", asked, headers)
    assert (answer.status, answer.problem) == (400, "bad-request"), answer
    assert "started" not in json.loads(answer.content)


def test_an_agents_certificate_asks_for_no_run(cluster: Cluster, mallory: Mallory) -> None:
    for method, path in (
        ("GET", "/v1/machines"),
        ("POST", "/v1/runs"),
        ("GET", "/v1/jobs"),
        ("POST", "/v1/admin/approve"),
    ):
        body = b"{}" if method == "POST" else None
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        answer = call(cluster, mallory.folder, method, path, body, headers)
        assert (answer.status, answer.problem) == (403, "wrong-role")
