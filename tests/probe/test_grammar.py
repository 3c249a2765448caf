"""What can be checked, as people type it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.probe.grammar import (
    MAX_TEXT,
    READERS,
    DiskRule,
    Endpoint,
    Url,
    read,
    read_disk,
    read_endpoint,
    read_options,
    read_url,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://localhost:8080/health?deep=1", Url(False, "localhost", 8080, "/health?deep=1")),
        ("http://web1", Url(False, "web1", 80, "/")),
        ("https://web1/a#part", Url(True, "web1", 443, "/a")),
        ("http://[::1]:81/", Url(False, "::1", 81, "/")),
        ("http://web1/?mail=a@b", Url(False, "web1", 80, "/?mail=a@b")),
    ],
)
def test_urls(text, meant):
    assert read_url(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost:8080", "ftp://web1/", "http://", "http://web1:0/", "http://web1:70000/", "http://web1/a b"),
        *("http://[::1/", "http://wéb1/", "http://web1/\n", "http://web1/\x7f", "file:///etc/passwd"),
    ],
)
def test_what_is_no_url(text):
    with pytest.raises(ValueError, match=r"^that is no URL"):
        read_url(text)


@pytest.mark.parametrize(
    "text", ["http://anna:s3cr3t@web1/", "https://s3cr3t@web1/", "http://anna:s3c/r3t@web1/", "http://a:s3cr3t@[::1/"]
)
def test_no_password_is_taken_in_a_url_nor_repeated(text):
    with pytest.raises(ValueError, match=r".") as refused:
        read_url(text)
    assert not any(part in str(refused.value) for part in ("s3cr3t", "s3c", "r3t@"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("22", Endpoint("localhost", 22)),
        ("db1:5432", Endpoint("db1", 5432)),
        ("10.0.0.1:65535", Endpoint("10.0.0.1", 65535)),
        ("[::1]:5432", Endpoint("::1", 5432)),
        ("[fe80::1%eth0]:80", Endpoint("fe80::1%eth0", 80)),
    ],
)
def test_endpoints(text, meant):
    assert read_endpoint(text) == meant


@pytest.mark.parametrize("text", ["", "0", "65536", "db1", "db1:", ":22", "::1:22", "[]:22", "a b:22", "22 ", "²²"])
def test_what_is_no_port(text):
    with pytest.raises(ValueError, match="is no port"):
        read_endpoint(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/ < 90%", DiskRule("/", used_percent=90)),
        ("/<90%", DiskRule("/", used_percent=90)),
        ("/var/lib/my data < 99.5 % used", DiskRule("/var/lib/my data", used_percent=99.5)),
        ("/ > 10GB free", DiskRule("/", free_bytes=10_000_000_000)),
        ("/a<b > 1.5 GiB FREE", DiskRule("/a<b", free_bytes=3 << 29)),
        ("~ > 5% free", DiskRule("~", free_percent=5)),
        (r"C:\ < 80%", DiskRule("C:\\", used_percent=80)),
    ],
)
def test_disks(text, meant):
    assert read_disk(text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/", "no whole path and a limit"),
        ("< 90%", "no whole path"),
        ("data < 90%", "no whole path"),
        ("/a\nb < 90%", "no whole path"),
        ("/ < 90", "in percent"),
        ("/ < 10GB", "in percent"),
        ("/ < 90% free", "in percent"),
        ("/ < 101%", "more than there is"),
        ("/ > 90%", "is free"),
        ("/ > 10GB", "is free"),
        ("/ > 10GB used", "is free"),
        ("/ > ten free", "is no size"),
        ("/ > 10GBfree", "is free"),
        ("/ <", "in percent"),
    ],
)
def test_what_is_no_rule_for_a_disk(text, why):
    with pytest.raises(ValueError, match=why):
        read_disk(text)


@pytest.mark.parametrize(
    "text", ["nginx", "nginx.service", "getty@tty1.service", "org.example.agent", "MSSQL$A", "a b"]
)
def test_services(text):
    assert read("service", text) == text


@pytest.mark.parametrize("text", ["", "--system", "-H", "ngin*", "[a]", "a/b", "a\nb", "x" * 300, " nginx"])
def test_what_is_no_service(text):
    with pytest.raises(ValueError, match="is no service"):
        read("service", text)


def test_commands_and_lengths():
    assert read("command", "test -f /etc/passwd") == "test -f /etc/passwd"
    for text in ("", "  \n", "a\0b"):
        with pytest.raises(ValueError, match="command"):
            read("command", text)
    with pytest.raises(ValueError, match="at most 4096 characters"):
        read("command", "x" * (MAX_TEXT + 1))


@given(
    st.sampled_from(list(READERS)),
    st.text(max_size=200) | st.from_regex(r"[/~a-z<>%0-9 .:@\[\]]{1,40}", fullmatch=True),
)
def test_any_text_is_read_or_refused_in_words(kind, text):
    with contextlib.suppress(ValueError):
        assert read(kind, text) is not None


@given(st.from_regex(r"[/~][^<>\x00-\x1f]{0,30}", fullmatch=True), st.decimals(0, 100, places=2))
def test_a_rule_for_a_disk_keeps_path_and_number(path, percent):
    path = path.strip()
    if not path.isprintable():
        return
    assert read_disk(f"{path} < {percent}%") == DiskRule(path, used_percent=float(percent))
    assert read_disk(f"{path}>{percent}% free") == DiskRule(path, free_percent=float(percent))


@given(st.integers(1, 65535), st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True))
def test_an_endpoint_keeps_host_and_port(port, host):
    assert read_endpoint(f"{host}:{port}") == Endpoint(host, port)


def test_options_are_seconds_and_checks_and_what_is_wrong_is_told() -> None:
    assert read_options(["--tcp", "22", "--timeout", "5s"]) == (5.0, [("tcp", "22")])
    for words, told in (
        (["--tcp", "22", "--disk"], "nothing follows '--disk'"),
        (["--nix", "22"], "there is no check '--nix'"),
        (["tcp", "22"], "there is no check 'tcp'"),
    ):
        with pytest.raises(ValueError, match=told):
            read_options(words)
