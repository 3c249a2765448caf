"""What people type as the coordinator."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.address import Address, parse_address

HOSTS = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?(?:\.[a-z0-9]{1,10}){0,3}", fullmatch=True)
PORTS = st.integers(1, 65535)
ADDRESSES = st.builds(Address, st.one_of(HOSTS, st.ip_addresses().map(str)), PORTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("joshua-ws1", Address("joshua-ws1", 5672)),
        ("Joshua-WS1.local:99", Address("joshua-ws1.local", 99)),
        ("http://joshua-ws1:5672", Address("joshua-ws1", 5672)),
        ("http://joshua-ws1:5672/", Address("joshua-ws1", 5672)),
        ("https://joshua-ws1", Address("joshua-ws1", 5672)),
        ("HTTP://10.0.0.1", Address("10.0.0.1", 5672)),
        (" 10.0.0.1:80 ", Address("10.0.0.1", 80)),
        ("[::1]:5672", Address("::1", 5672)),
        ("http://[2001:DB8::1]", Address("2001:db8::1", 5672)),
        ("::1", Address("::1", 5672)),
        ("fe80::1%eth0", Address("fe80::1%eth0", 5672)),
        ("my_host", Address("my_host", 5672)),
    ],
)
def test_the_usual_spellings(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no host"),
        (":5672", "names no host"),
        ("http://", "names no host"),
        ("ssh://ws1", "not 'ssh'"),
        ("http://ws1/v1", "without a path"),
        ("ws1/x", "without a path"),
        ("ws1?x=1", "without a path"),
        ("ws1#x", "without a path"),
        ("joshua:secret@ws1", "no user name or password"),
        ("http://joshua@ws1", "no user name or password"),
        ("ws1:0", "between 1 and 65535"),
        ("ws1:65536", "between 1 and 65535"),
        ("ws1:", "no address"),
        ("ws1:http", "no address"),
        ("[::1", "no"),
        ("[::g]:5672", "no IPv6 address"),
        ("-ws1", "no host name"),
        ("ws 1", "no host name"),
        ("ws1\x1b[2J", "no"),
        ("x" * 300, "no host name"),
    ],
)
def test_what_is_refused_and_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@given(ADDRESSES, st.sampled_from(["plain", "tls", "bare"]))
def test_what_is_written_is_read_again(address: Address, form: str) -> None:
    text = {"plain": address.plain_url("/"), "tls": address.tls_url(), "bare": address.netloc}[form]
    assert parse_address(text) == address


@given(ADDRESSES)
def test_urls_bracket_ipv6_only(address: Address) -> None:
    try:
        is_v6 = ipaddress.ip_address(address.host).version == 6
    except ValueError:
        is_v6 = False
    host = f"[{address.host}]" if is_v6 else address.host
    assert address.tls_url("/health") == f"https://{host}:{address.port}/health"
    assert str(address) == f"http://{host}:{address.port}"


@given(st.text())
def test_any_text_gives_an_address_or_one_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert parse_address(address.netloc) == address


@pytest.mark.parametrize("text", ["[fe80::1%\x1b[2J]:80", "[::%e th0]", "::%\udcff", "[fe80::1%]:80"])
def test_a_network_interface_is_no_arbitrary_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (IPv6 address|network interface|address|host name)"):
        parse_address(text)
    assert parse_address("[fe80::1%eth0.5]:80").host == "fe80::1%eth0.5"
