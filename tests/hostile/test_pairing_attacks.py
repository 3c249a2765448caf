"""Strangers who flood, guess codes, or sit between a login and its coordinator."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clustersh.trust import keys
from clustersh.trust.authority import Authority
from clustersh.trust.identity import Role
from clustersh.trust.pairing import commitment, make_request
from tests.faults.services import faulty_cluster, user_home, workplace
from tests.hostile.attackers import Answer, call, log_lines, still_serves, watched
from tests.real.programs import PATIENCE_S, Cluster, Home, Result, end, eventually, log_in

JSON = {"Content-Type": "application/json"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pair_start(name: str, nonce: bytes, role: Role = Role.FRONTEND) -> bytes:
    request = make_request(keys.generate(), name, role)
    return json.dumps({"role": role.value, "request": b64(request), "commitment": b64(commitment(nonce))}).encode()


def post(cluster: Cluster, path: str, body: bytes) -> Answer:
    return call(cluster, None, "POST", path, body, JSON, plain=True, source="127.0.0.2")


def test_a_flood_of_logins_and_enrollments_is_limited_and_logged_once(own_cluster: Cluster) -> None:
    bodies = [pair_start(f"flood{n}@box", os.urandom(32)) for n in range(20)]
    bodies += [pair_start(f"flood{n}", os.urandom(32), Role.AGENT) for n in range(20)]
    with watched(own_cluster, "600 requests to join") as seen:
        answers = [post(own_cluster, "/pair", bodies[n % len(bodies)]) for n in range(600)]
    statuses = {status: sum(answer.status == status for answer in answers) for status in (200, 429)}
    assert statuses[200] + statuses[429] == 600
    assert 5 <= statuses[200] <= 60, statuses
    assert {answer.problem for answer in answers if answer.status == 429} == {"rate-limited"}
    assert 1 <= len(log_lines(own_cluster, "too many requests")) <= 3
    assert len(own_cluster.coordinator.run("clusterd", "pending", "--json").json["pending"]) <= 20
    assert seen.grown_mib < 24
    assert seen.slowest_s < 5
    still_serves(own_cluster)


def test_wrong_codes_are_counted_limited_and_logged(own_cluster: Cluster, tmp_path: Path) -> None:
    joining = user_home(tmp_path, "joining")
    asked = joining.sh("login", f"http://{own_cluster.address}", "--name", "ann@box", "--no-wait")
    code = asked.out.split("clusterd approve ")[1].split()[0]
    admin = own_cluster.coordinator.path / "coordinator" / "admin"
    wrong = [f"{n:08x}" for n in range(30) if f"{n:08x}" != code]
    answers = [
        call(own_cluster, admin, "POST", "/v1/admin/approve", json.dumps({"code": each}).encode(), JSON)
        for each in wrong
    ]
    problems = [answer.problem for answer in answers]
    assert problems[0] == "wrong-code" and problems[-1] == "rate-limited"
    assert 10 <= problems.count("wrong-code") <= 15
    refused = own_cluster.coordinator.run("clusterd", "approve", code)
    assert refused.status != 0 and "too many wrong codes" in refused.err, refused
    assert len(log_lines(own_cluster, "wrong code")) == 1
    assert own_cluster.coordinator.run("clusterd", "audit", "--json").out.count("wrong code") == 1
    assert joining.sh("whoami").status == 125
    guessed = own_cluster.coordinator.run("clusterd", "approve", "1")
    assert guessed.status != 0 and "Traceback" not in guessed.err


def test_a_nonce_that_was_not_committed_to_ends_the_pairing(cluster: Cluster) -> None:
    """Else a man in the middle could try nonces until the code fits."""
    nonce = os.urandom(32)
    offer = json.loads(post(cluster, "/pair", pair_start("ann@box", nonce)).content)
    other = post(cluster, f"/pair/{offer['id']}", json.dumps({"nonce": b64(os.urandom(32))}).encode())
    assert (other.status, other.problem) == (400, "bad-request")
    late = post(cluster, f"/pair/{offer['id']}", json.dumps({"nonce": b64(nonce)}).encode())
    assert (late.status, late.problem) == (404, "unknown-pairing")


def test_a_request_to_join_that_cant_be_is_refused(cluster: Cluster) -> None:
    good = json.loads(pair_start("ann@box", os.urandom(32)))
    for change in (
        {"role": "admin"},
        {"role": "server"},
        {"role": "agent"},
        {"request": b64(os.urandom(400))},
        {"request": b64(b"\x30" * 9000)},
        {"request": "not base64"},
        {"commitment": b64(b"short")},
        {"extra": 1},
    ):
        answer = post(cluster, "/pair", json.dumps(good | change).encode())
        assert answer.status in (400, 429), (change, answer)
    assert "Traceback" not in cluster.coordinator.log.read_text()


# -- a man in the middle, or in the coordinator's place

Change = Callable[[dict[str, Any]], dict[str, Any]]
_hosts = itertools.count(1)
"""Each man in the middle has an address, and so a rate limit, of its own; each victim has a name."""


class Middle:
    """An HTTP proxy that changes what passes: *asked* requests on their way to the coordinator, *told* its answers."""

    def __init__(self, cluster: Cluster, asked: Change, told: Change) -> None:
        middle = self
        self.source = f"127.0.1.{next(_hosts)}"
        self.passed: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == "/pair":
                    body = json.dumps(asked(json.loads(body))).encode()
                middle.passed.append(body)
                headers = {name: self.headers[name] for name in ("Content-Type", "Prefer") if name in self.headers}
                answer = call(
                    cluster, None, self.command, self.path, body or None, headers, plain=True, source=middle.source
                )
                content = answer.content
                if answer.status == 200 and self.path.startswith("/pair"):
                    content = json.dumps(told(json.loads(content))).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            do_GET = do_POST = forward

            def log_message(self, *args: object) -> None:
                """Say nothing: a test reads stderr."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextlib.contextmanager
def between(cluster: Cluster, asked: Change = dict, told: Change = dict) -> Iterator[Middle]:
    middle = Middle(cluster, asked, told)
    try:
        yield middle
    finally:
        middle.close()


def log_in_through(middle: Middle, victim: Home) -> tuple[subprocess.Popen[bytes], str]:
    """Begin a login through *middle*; return it and the code that it shows."""
    login = victim.open("clustersh", "login", f"http://{middle.address}", "--name", f"victim{next(_hosts)}@box")
    assert login.stdout is not None
    shown = login.stdout.readline().decode()
    assert "clusterd approve " in shown, (shown, login.communicate(timeout=PATIENCE_S))
    return login, shown.split("clusterd approve ")[1].split()[0]


def assert_approval_fails(cluster: Cluster, code: str) -> Result:
    done = cluster.coordinator.run("clusterd", "approve", code)
    assert done.status != 0, done
    assert "somebody sits in between" in done.err and "clustersh logout" in done.err, done.err
    return done


def test_an_honest_proxy_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """The control: the same proxy, which changes nothing, lets a login through."""
    victim = user_home(tmp_path, "victim")
    with between(cluster) as middle:
        login, code = log_in_through(middle, victim)
        assert cluster.coordinator.run("clusterd", "approve", code).status == 0
        eventually(lambda: (victim.path / "client" / "cert.pem").exists())
        end(login)


def _swap_key(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | {"request": b64(make_request(keys.generate(), "thief@box", Role.FRONTEND))}


def _rename(asked: dict[str, Any]) -> dict[str, Any]:
    """A man in the middle has no key of the client's: another name means another signed request."""
    return asked | {"request": b64(make_request(keys.generate(), "root@everywhere", Role.FRONTEND))}


@pytest.mark.parametrize("attack", [_swap_key, _rename])
def test_a_key_or_name_that_is_swapped_on_the_way_is_not_approved(
    cluster: Cluster, tmp_path: Path, attack: Change
) -> None:
    victim = user_home(tmp_path, "victim")
    with between(cluster, asked=attack) as middle:
        login, code = log_in_through(middle, victim)
        assert_approval_fails(cluster, code)
        assert login.poll() is None
        assert not (victim.path / "client" / "cert.pem").exists()
        end(login)
    names = [each["name"] for each in cluster.coordinator.run("clusterd", "clients", "--json").json["clients"]]
    assert "root@everywhere" not in names


def test_a_nonce_that_is_swapped_on_the_way_is_not_approved(cluster: Cluster, tmp_path: Path) -> None:
    with between(
        cluster, told=lambda told: told | ({"nonce": b64(os.urandom(32))} if "nonce" in told else {})
    ) as middle:
        login, code = log_in_through(middle, user_home(tmp_path, "victim"))
        assert_approval_fails(cluster, code)
        end(login)


def test_a_coordinator_with_a_ca_of_its_own_can_be_told_and_left(cluster: Cluster, tmp_path: Path) -> None:
    """The code fails at the true one, which says what to do; a client that pins the CA never asks the other."""
    victim = user_home(tmp_path, "victim")
    other = Authority.create(tmp_path, datetime.now(UTC))
    own_ca: Change = lambda told: told | ({"ca": b64(other.certificate_der)} if "ca" in told else {})  # noqa: E731
    with between(cluster, told=own_ca) as middle:
        login, code = log_in_through(middle, victim)
        assert_approval_fails(cluster, code)
        end(login)
        pinned = user_home(tmp_path, "pinned")
        pin = hashlib.sha256(Authority.load(cluster.coordinator.path / "coordinator").certificate_der).hexdigest()
        asked = len(middle.passed)
        refused = pinned.sh("login", f"http://{middle.address}", "--ca", pin, "--name", "pinned@box")
        assert refused.status == 125 and "answers, but not as a coordinator does (no TLS)" in refused.err, refused
        assert len(middle.passed) == asked + 1, "it gave away the CA certificate, and got nothing for it"
        own_pin = hashlib.sha256(other.certificate_der).hexdigest()
        refused = pinned.sh("login", f"http://{middle.address}", "--ca", own_pin, "--name", "pinned@box")
        assert refused.status == 125 and "is not the coordinator that --ca names" in refused.err, refused
    assert victim.sh("logout").status in (0, 125)
    log_in(cluster.coordinator, victim, cluster.address, "rescued@box")
    assert victim.sh("whoami").status == 0


@pytest.fixture(scope="module")
def impostor() -> Iterator[Cluster]:
    """Another coordinator, with a CA and a machine ws1 of its own."""
    with workplace() as folder, faulty_cluster(folder, number=1) as made:
        yield made


def let_in_by(impostor: Cluster, victim: Home, *words: str) -> tuple[subprocess.Popen[bytes], str, str]:
    """Have *victim* log in at *impostor*, which approves; return the login, what it showed, and the code."""
    login = victim.open("clustersh", "login", f"http://{impostor.address}", *words, stdin=subprocess.PIPE)
    assert login.stdout is not None
    shown = login.stdout.readline().decode()
    if "--verify" not in words:
        shown += login.stdout.readline().decode()
    code = shown.split("clusterd approve ")[1].split()[0]
    assert impostor.coordinator.run("clusterd", "approve", code).status == 0
    return login, shown, code


def test_an_impostor_that_lets_a_client_in_is_told_by_the_true_approval_and_gets_nothing_through(
    cluster: Cluster, impostor: Cluster, tmp_path: Path
) -> None:
    victim = user_home(tmp_path, "victim")
    login, shown, code = let_in_by(impostor, victim, "--name", "trapped@box")
    assert re.search("It will show the check digits [0-9a-f]{4}; if it shows others, log out again", shown), shown
    out, err = login.communicate(timeout=PATIENCE_S)
    assert login.returncode == 0 and b"Logged in as trapped@box" in out, (out, err)

    refused = cluster.coordinator.run("clusterd", "approve", code)
    assert refused.status == 125, refused
    advice = "if that login reports success, it is talking to an impostor: run `clustersh logout` there"
    assert f"hint: {advice}\n" in refused.err, refused
    assert not refused.out, "no check digits, no name: nobody was let in"

    assert victim.sh("run", "ws1", "echo a secret").out == "a secret\n"
    assert victim.sh("run", "--detach", "ws1", "true").status == 0
    audit = cluster.coordinator.run("clusterd", "audit", "--json").out + cluster.coordinator.log.read_text()
    assert "trapped@box" not in audit and "a secret" not in audit
    assert not [path for path in _files(cluster.agent) if b"a secret" in path.read_bytes()]
    clients = cluster.coordinator.run("clusterd", "clients", "--json").json["clients"]
    assert "trapped@box" not in [each["name"] for each in clients]
    folder = victim.path / "client"
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        call(cluster, folder, "GET", "/v1/machines")

    assert victim.sh("logout").status == 0
    assert not list(folder.glob("*.pem"))
    log_in(cluster.coordinator, victim, cluster.address, "freed@box")
    assert victim.sh("run", "ws1", "echo home").out == "home\n"


def _files(home: Home) -> list[Path]:
    return [path for path in home.path.rglob("*") if path.is_file()]


def test_a_login_that_asks_for_the_check_digits_keeps_nothing_of_an_impostor(
    cluster: Cluster, impostor: Cluster, tmp_path: Path
) -> None:
    """The approval that would show them fails, so the person has none to type."""
    victim = user_home(tmp_path, "victim")
    login, _, code = let_in_by(impostor, victim, "--name", "careful@box", "--verify")
    assert assert_approval_fails(cluster, code).out == ""
    out, err = login.communicate(b"\n", timeout=PATIENCE_S)
    assert login.returncode == 125 and b"nothing was kept" in err, (out, err)
    assert not (victim.path / "client" / "cert.pem").exists()
    assert victim.sh("run", "ws1", "true").status == 125


def test_a_login_that_pins_the_ca_never_shows_an_impostors_code(
    cluster: Cluster, impostor: Cluster, tmp_path: Path
) -> None:
    victim = user_home(tmp_path, "victim")
    pin = hashlib.sha256(Authority.load(cluster.coordinator.path / "coordinator").certificate_der).hexdigest()
    refused = victim.sh("login", f"http://{impostor.address}", "--ca", pin, "--name", "pinned@box")
    assert refused.status == 125 and "not the coordinator that --ca names" in refused.err, refused
    assert "clusterd approve" not in refused.out + refused.err
    assert not (victim.path / "client" / "pending.json").exists()
    honest = victim.open("clustersh", "login", f"http://{cluster.address}", "--ca", pin, "--name", "pinned@box")
    assert honest.stdout is not None and b"clusterd approve" in honest.stdout.readline()
    end(honest)


# -- join tokens


@pytest.fixture(scope="module")
def token_cluster() -> Iterator[Cluster]:
    """A coordinator that lets machines in by a token only; the cluster's own machine came in before."""
    with workplace() as folder, faulty_cluster(folder) as made:
        config = made.coordinator.path / "config.toml"
        config.write_text(config.read_text() + '[enrollment]\npolicy = "token"\n')
        end(made.coordinator_process)
        made.restart_coordinator()
        yield made


def make_a_token(cluster: Cluster) -> str:
    return str(cluster.coordinator.run("clusterd", "token", "create", "--json").json["token"])


def enroll_through(middle: Middle, machine: Home, token: str) -> Result:
    words = ("enroll", f"http://{middle.address}", "--name", f"victim{next(_hosts)}")
    return machine.run("clusteragent", *words, environ={"CLUSTERSH_TOKEN": token})


def tokens_used(cluster: Cluster, token: str) -> int:
    listed = cluster.coordinator.run("clusterd", "token", "list", "--json").json["tokens"]
    return next(int(each["used"]) for each in listed if each["id"] == token[:12])


def test_an_honest_proxy_sees_no_token(token_cluster: Cluster, tmp_path: Path) -> None:
    token = make_a_token(token_cluster)
    with between(token_cluster) as middle:
        done = enroll_through(middle, user_home(tmp_path, "victim"), token)
        assert done.status == 0, done
        seen = b"".join(middle.passed)
    assert token[:12].encode() in seen
    secret = bytes.fromhex(token[13:])
    assert token[13:].encode() not in seen and base64.b64encode(secret).rstrip(b"=") not in seen
    assert tokens_used(token_cluster, token) == 1


def _agents_key(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | {"request": b64(make_request(keys.generate(), "thief", Role.AGENT))}


def test_a_token_lets_nobody_else_in_who_sits_in_between(token_cluster: Cluster, tmp_path: Path) -> None:
    token = make_a_token(token_cluster)
    with between(token_cluster, asked=_agents_key) as middle:
        refused = enroll_through(middle, user_home(tmp_path, "swapped"), token)
        assert refused.status == 125 and "did not make this join token" in refused.err, refused
        stolen = [json.loads(body) for body in middle.passed if b'"token"' in body]
    assert len(stolen) == 1
    names = [each["name"] for each in token_cluster.coordinator.run("clusterd", "machines", "--json").json["machines"]]
    assert "thief" not in names
    nonce = os.urandom(32)
    begun = post(token_cluster, "/pair", pair_start("thief", nonce, Role.AGENT))
    replay = {"nonce": b64(nonce), "token": stolen[0]["token"]}
    answer = post(token_cluster, f"/pair/{json.loads(begun.content)['id']}", json.dumps(replay).encode())
    assert answer.problem == "wrong-token"
    assert tokens_used(token_cluster, token) == 0
    assert enroll_through_nobody(token_cluster, user_home(tmp_path, "honest"), token).status == 0


def enroll_through_nobody(cluster: Cluster, machine: Home, token: str) -> Result:
    words = ("enroll", f"http://{cluster.address}", "--name", f"victim{next(_hosts)}")
    return machine.run("clusteragent", *words, environ={"CLUSTERSH_TOKEN": token})


@pytest.mark.parametrize("lie", ["no proof", "an echo"])
def test_an_approval_by_who_does_not_know_the_token_is_refused(
    token_cluster: Cluster, tmp_path: Path, lie: str
) -> None:
    """The one in between says that all is well, in place of the coordinator."""
    token, victim = make_a_token(token_cluster), user_home(tmp_path, "victim")

    def told(answer: dict[str, Any]) -> dict[str, Any]:
        if "status" not in answer:
            return answer
        shown = json.loads(middle.passed[-1])["token"]["proof"] if lie == "an echo" else ""
        return answer | {"status": "approved", "token_proof": shown}

    with between(token_cluster, told=told) as middle:
        refused = enroll_through(middle, victim, token)
    assert refused.status == 125 and "is not the coordinator that made the join token" in refused.err, refused
    assert not (victim.path / "agent" / "cert.pem").exists()


def test_guessing_tokens_is_limited_and_logged_once(token_cluster: Cluster) -> None:
    """Against the real one's id, from one address, as fast as starts allow."""
    id_, problems = make_a_token(token_cluster)[:12], []
    for number in range(40):
        nonce = os.urandom(32)
        begun = post(token_cluster, "/pair", pair_start(f"guess{number}", nonce, Role.AGENT))
        if begun.status != 200:
            problems.append(begun.problem)
            continue
        guess = {"nonce": b64(nonce), "token": {"id": id_, "proof": b64(os.urandom(32))}}
        path = f"/pair/{json.loads(begun.content)['id']}"
        problems.append(post(token_cluster, path, json.dumps(guess).encode()).problem)
    assert set(problems) == {"wrong-token", "rate-limited"}
    assert problems.count("wrong-token") <= 20
    assert 1 <= len(log_lines(token_cluster, "wrong join token")) <= 6
    assert "Traceback" not in token_cluster.coordinator.log.read_text()
