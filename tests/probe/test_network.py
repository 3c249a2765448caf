"""The checks ``http`` and ``tcp``, against real servers."""

from __future__ import annotations

import re
import socket
import threading
from time import monotonic

import pytest

from clustersh.probe.failed import Failed
from clustersh.probe.grammar import read_endpoint, read_url
from clustersh.probe.network import check_http, check_tcp
from clustersh.probe.probe import probe

from .servers import http_server, server_context, socket_server

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server():
    with http_server() as port:
        yield f"http://127.0.0.1:{port}"


def asked(url: str, timeout_s: float = PATIENCE_S) -> str:
    return check_http(read_url(url), timeout_s)


def failed(url: str, timeout_s: float = PATIENCE_S) -> str:
    with pytest.raises(Failed) as failure:
        asked(url, timeout_s)
    return str(failure.value)


@pytest.mark.parametrize("status", [200, 204, 304])
def test_2xx_and_3xx_pass_with_their_status_and_time(server, status):
    assert re.fullmatch(rf"{status} in \d+ ms", asked(f"{server}/status/{status}"))


@pytest.mark.parametrize("status", [400, 404, 503, 599])
def test_others_fail_with_their_status_and_time(server, status):
    assert re.fullmatch(rf"{status} in \d+ ms", failed(f"{server}/status/{status}"))


def test_redirects_are_followed_within_bounds(server):
    assert asked(f"{server}/to?/status/200").endswith("ms after 1 redirect")
    assert asked(f"{server}/to?{server}/to?/status/204").endswith("ms after 2 redirects")
    assert failed(f"{server}/to?/status/503").startswith("503 in ")
    assert failed(f"{server}/loop") == "more than 5 redirects"


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "http://anna:pw@127.0.0.1/", "http://[::1/", "ftp://127.0.0.1"]
)
def test_no_redirect_leads_out_of_http(server, place):
    assert failed(f"{server}/to?{place}") == "it redirects to what is no usable URL"


def test_a_body_without_an_end_is_not_read(server):
    assert asked(f"{server}/endless").startswith("200 in ")


def test_certificates_are_verified(tmp_path, monkeypatch):
    context, own_ca = server_context(tmp_path)
    with http_server(context) as port:
        said = failed(f"https://127.0.0.1:{port}/status/200")
        assert said.startswith("its certificate is not accepted: self")
        monkeypatch.setenv("SSL_CERT_FILE", str(own_ca))
        assert asked(f"https://127.0.0.1:{port}/status/200").startswith("200 in ")
        assert "not valid for 'localhost'" in failed(f"https://localhost:{port}/status/200")


def test_what_is_no_tls_is_said(server):
    assert failed(server.replace("http:", "https:")).startswith("TLS failed: ")


def silent(connection: socket.socket, over: threading.Event) -> None:
    over.wait(PATIENCE_S)


def dripping(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


@pytest.mark.parametrize("talk", [silent, dripping])
def test_what_gives_no_answer_is_left_in_time(talk, monkeypatch):
    monkeypatch.setattr("clustersh.probe.probe._GRACE_S", 0.2)
    with socket_server(talk) as port:
        begun = monotonic()
        (found,) = probe([("http", f"http://127.0.0.1:{port}/")], 0.3)
        assert monotonic() - begun < PATIENCE_S / 2
    assert found == (False, "no answer within 0.3s")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "what answers there does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "what answers there does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, "what answers there does not speak HTTP"),
        (b"HTTP/1.1 101 Go\r\n\r\n", "101 in"),
        (b"", "the connection was closed without an answer"),
    ],
)
def test_other_answers_are_said(answer, said):
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with socket_server(talk) as port:
        assert failed(f"http://127.0.0.1:{port}/").startswith(said)


def test_closed_ports_and_unknown_hosts(free_port):
    assert failed(f"http://127.0.0.1:{free_port}/") == "Connection refused"
    assert failed("http://a..b/") == "no host can have that name"
    for text, said in ((f"127.0.0.1:{free_port}", "Connection refused"), ("a..b:1", "no host can have that name")):
        with pytest.raises(Failed, match=said):
            check_tcp(read_endpoint(text), PATIENCE_S)


def test_tcp_connects_to_the_machine_itself_unless_told_otherwise():
    with socket_server(lambda connection, over: None) as port:
        assert re.fullmatch(r"connected in \d+ ms", check_tcp(read_endpoint(str(port)), PATIENCE_S))
        assert check_tcp(read_endpoint(f"127.0.0.1:{port}"), PATIENCE_S).startswith("connected in ")


def test_tcp_gives_up_in_time():
    # Nobody accepts, and the queue of connections is full: further ones get no answer.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            with pytest.raises(Failed, match=r"no answer within 0\.2s"):
                check_tcp(read_endpoint(f"127.0.0.1:{address[1]}"), 0.2)
        finally:
            for one in waiting:
                one.close()


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets it, and nobody answers there.
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
