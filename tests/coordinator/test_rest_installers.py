"""Installers: what they carry is quoted, their address is checked, and problems are told as scripts."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
import tree_sitter
import tree_sitter_powershell
from hypothesis import given
from hypothesis import strategies as st

from clustersh.address import Address
from clustersh.coordinator.installers import (
    NAMES,
    InstallerFacts,
    address_of_host,
    quote_powershell,
    quote_shell,
    render,
    render_error,
    render_unaddressed,
)
from clustersh.coordinator.join_lines import pinned_line, plain_line, powershell_line
from clustersh.coordinator.packages import Packages
from clustersh.coordinator.rest_installers import InstallerCalls, Installers, Trust
from clustersh.coordinator.wheelhouse import Contents, Wheelhouse
from clustersh.home import private_folder
from clustersh.trust.authority import Authority, server_credentials
from clustersh.trust.identity import Role, curl_pin
from clustersh.wire.joining import Invitation

from .conftest import Front
from .test_package_index import OWN, fill, held

PIN = "sha256//" + "A" * 43 + "="
FACTS = InstallerFacts(
    address="hub:5672",
    scheme="http",
    ca_sha256="ab" * 32,
    ca_pem="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    server_pin=PIN,
    version="1.2.3",
    wheel_name=OWN.name,
    wheel_sha256=OWN.sha256,
    requirements="a==1 ; (sys_platform == 'linux') --hash=sha256:00\n",
    kinds="linux x86_64 3.11\n",
)


def bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/bash"], input=script, capture_output=True, text=True, check=False)


# -- rendering


@pytest.mark.parametrize("name", NAMES)
def test_no_token_is_left_and_every_value_is_quoted(name: str) -> None:
    script = render(name, FACTS)
    assert not re.search(r"@[A-Z_]+@", script)
    assert "'hub:5672'" in script
    evil = FACTS._replace(requirements="'; touch /tmp/x; '\n@ADDRESS@")
    quoted = (quote_shell if name.endswith(".sh") else quote_powershell)(evil.requirements)
    assert quoted in render(name, evil)


@pytest.mark.real
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_shell_reads_a_quoted_value_as_it_was(value: str) -> None:
    read = subprocess.run(
        ["/bin/bash", "-c", f"printf %s {quote_shell(value)}"], capture_output=True, check=True
    ).stdout
    assert read == value.encode()


def test_powershell_s_other_quotes_are_doubled() -> None:
    assert quote_powershell("a'b\u2019c\u201a") == "'a''b\u2019\u2019c\u201a\u201a'"


@pytest.mark.real
@pytest.mark.parametrize("name", ["install.sh", "install_client.sh"])
def test_an_error_is_told_by_the_script_which_ends_with_it(name: str) -> None:
    ran = bash(render_error(name, "it's `id` $(id)", "run: $HOME"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "ERROR: it's `id` $(id)\nhint: run: $HOME\n"


def has_error(script: str) -> bool:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    return parser.parse(script.encode()).root_node.has_error


def test_powershell_reads_every_script_without_error() -> None:
    for name in ("install.ps1", "install_client.ps1"):
        assert not has_error(render(name, FACTS._replace(requirements="it's\n")))
        assert not has_error(render_error(name, "it's `id` $(id)", "run: $HOME"))
        assert has_error(render(name, FACTS).replace("try {", "try"))
    for client in (False, True):
        assert not has_error(powershell_line(INVITATION, HUB, client=client, token="a'b"))


# -- the address


@pytest.mark.parametrize(
    ("header", "scheme", "address"),
    [
        (b"hub:5672", "http", Address("hub", 5672)),
        (b"Hub.Example", "http", Address("hub.example", 80)),
        (b"hub", "https", Address("hub", 443)),
        (b"10.0.0.5:1", "http", Address("10.0.0.5", 1)),
        (b"[fd00::5]:5672", "http", Address("fd00::5", 5672)),
        (b"[FD00::5]", "http", Address("fd00::5", 80)),
    ],
)
def test_the_host_header_tells_the_address(header: bytes, scheme: str, address: Address) -> None:
    assert address_of_host([header], scheme) == address


HOSTILE = [
    b"",
    b"hub:",
    b"hub:0",
    b"hub:99999",
    b":5672",
    b"http://hub:5672",
    b"ann@hub",
    b"hub/x",
    b"hub?x",
    b"hub\\x",
    b"hub x",
    b"hub';touch /tmp/x;'",
    b"$(touch /tmp/x)",
    b"`id`",
    b"hub\xff",
    b"\xe2\x80\x99",
    b"fd00::5",
    b"[fd00::5",
    b"[::1%25$(id)]:1",
    b"a" * 300,
]


@pytest.mark.parametrize("header", HOSTILE)
def test_what_is_no_host_and_port_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError):
        address_of_host([header], "http")


def test_a_request_names_one_host() -> None:
    for headers in ([], [b"hub:1", b"hub:2"]):
        with pytest.raises(ValueError, match="one Host"):
            address_of_host(headers, "http")


# -- the calls


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Wheelhouse:
    made = Wheelhouse(private_folder(tmp_path / "state"))
    made.replace(Contents((fill(held("a-1.0-py3-none-any.whl")),)))
    return made


@pytest.fixture
def calls(front: Front, wheelhouse: Wheelhouse) -> Front:
    InstallerCalls(Installers(Packages(wheelhouse, lambda: OWN), Trust("ab" * 32, "PEM", PIN))).add_to(front.api)
    return front


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plain", [True, False])
async def test_a_script_carries_what_it_needs(calls: Front, name: str, plain: bool) -> None:
    answer = await calls.call("GET", f"/{name}", plain=plain)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    script = answer.content.decode()
    expected = (f"'127.0.0.1:{calls.port}'", OWN.sha256, "a==1.0 --hash=sha256:", "linux x86_64 3.11", "ab" * 32)
    assert [text for text in expected if text not in script] == []
    if name.endswith(".sh"):
        assert f"scheme='{'http' if plain else 'https'}'" in script and PIN in script


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("header", [header for header in HOSTILE if b"\xff" not in header])
async def test_an_unusable_host_gets_a_script_that_says_so_and_nothing_of_it(calls: Front, header: bytes) -> None:
    wire = await calls.raw()
    wire.send(b"GET /install.sh HTTP/1.1\r\nHost: " + header + b"\r\nConnection: close\r\n\r\n")
    await wire.closed
    head, _, body = wire.received.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"400"
    assert body.decode() == render_unaddressed("install.sh")


@pytest.mark.real
@pytest_twisted.ensureDeferred
async def test_a_refusal_is_a_script_too(calls: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustersh.coordinator.callers.is_near", lambda address, allowed: False)
    answer = await calls.call("GET", "/install.sh")
    assert (answer.status, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")
    ran = bash(answer.content.decode())
    assert ran.returncode == 1
    assert ran.stderr.startswith("ERROR: this coordinator answers strangers from near addresses only")
    powershell = await calls.call("GET", "/install.ps1?x=1")
    assert "throw" in powershell.content.decode()


@pytest_twisted.ensureDeferred
async def test_an_invitation_has_the_sums_of_what_plain_http_serves(calls: Front) -> None:
    assert (await calls.call("GET", "/v1/admin/invite?address=hub", Role.FRONTEND)).problem == "wrong-role"
    told = (await calls.call("GET", f"/v1/admin/invite?address=127.0.0.1:{calls.port}", Role.ADMIN)).json
    assert (told["address"], told["server_pin"]) == (f"127.0.0.1:{calls.port}", PIN)
    for name in NAMES:
        served = await calls.call("GET", f"/{name}", plain=True)
        assert hashlib.sha256(served.content).hexdigest() == told["scripts"][name]
    wrong = await calls.call("GET", "/v1/admin/invite?address=a%20b", Role.ADMIN)
    assert (wrong.status, wrong.problem) == (400, "bad-request")


# -- lines and pins


INVITATION = Invitation("hub:5672", PIN, "ab" * 32, dict.fromkeys(NAMES, "cd" * 32))
HUB = Address("hub", 5672)


def test_the_lines() -> None:
    assert plain_line(HUB) == "curl http://hub:5672/install.sh | bash"
    assert plain_line(HUB, client=True) == "curl http://hub:5672/install_client.sh | bash"
    assert pinned_line(INVITATION, HUB) == f"curl -fsSk --pinnedpubkey '{PIN}' https://hub:5672/install.sh | bash"
    assert pinned_line(INVITATION, HUB, client=True, token="a'b").endswith(
        "/install_client.sh | CLUSTERSH_TOKEN='a'\"'\"'b' bash"
    )
    assert "'https://[fd00::5]:1/install.sh'" in pinned_line(INVITATION, Address("fd00::5", 1))


def test_powershell_compares_before_it_runs() -> None:
    steps = powershell_line(INVITATION, HUB, token="t").split("; ")
    assert "'http://hub:5672/install.ps1'" in steps[1]
    assert steps[2].startswith(f"if ((Get-FileHash -Algorithm SHA256 $f).Hash -ne '{'cd' * 32}') {{ Remove-Item $f")
    assert steps[-2:] == ["$env:CLUSTERSH_TOKEN = 't'", "powershell -ExecutionPolicy Bypass -File $f"]


@pytest.mark.real
def test_the_server_s_pin_outlives_its_certificate(authority: Authority, tmp_path: Path) -> None:
    folder, now = tmp_path / "coordinator", datetime.now(UTC)
    first = server_credentials(folder, authority, now)
    later = server_credentials(folder, authority, now + timedelta(days=3650))
    assert later.certificate.serial_number != first.certificate.serial_number
    assert curl_pin(later.key.public_key()) == curl_pin(first.key.public_key())
    pin = curl_pin(first.key.public_key())
    shown = subprocess.run(
        "openssl x509 -in server.pem -pubkey -noout | openssl pkey -pubin -outform der",
        shell=True,
        cwd=folder,
        capture_output=True,
        check=True,
    ).stdout
    assert pin == "sha256//" + base64.b64encode(hashlib.sha256(shown).digest()).decode()
