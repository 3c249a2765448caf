"""What `tailscale status --json` says, as its versions write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.tailscale import Node, parse_status
from clustersh.wire.codec import WireError

NEVER = "0001-01-01T00:00:00Z"
SELF = {
    "ID": "n1", "HostName": "hub", "DNSName": "hub.tail1234.ts.net.", "OS": "linux", "Online": True, "Active": False,
    "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"], "Relay": "fra", "CurAddr": "", "LastSeen": NEVER,
}  # fmt: skip


def peer(name: str, address: str, **more: Any) -> dict[str, Any]:
    return {
        "HostName": name.upper(), "DNSName": f"{name}.tail1234.ts.net.", "OS": "linux", "TailscaleIPs": [address],
        "Addrs": None, "CurAddr": "", "Relay": "fra", "RxBytes": 0, "Online": True, "Active": False, "Tags": None,
        "Created": "2024-01-05T10:00:00.123456789Z", "LastSeen": NEVER, "ExitNode": False, **more,
    }  # fmt: skip


def status(*peers: dict[str, Any], **more: Any) -> bytes:
    found = {
        "Version": "1.90",
        "BackendState": "Running",
        "Self": SELF,
        "Peer": {f"key{n}": p for n, p in enumerate(peers)},
    }
    return json.dumps({**found, **more}).encode()


def test_this_host_comes_first_and_names_end_without_a_dot() -> None:
    own, other = parse_status(status(peer("web01", "100.64.0.2")))
    assert own == Node(
        "hub", "hub.tail1234.ts.net", ("100.64.0.1", "fd7a:115c:a1e0::1"), online=True, os="linux", own=True
    )
    assert (other.name, other.dns_name, other.own) == ("web01", "web01.tail1234.ts.net", False)


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ({}, ""),
        ({"Active": True, "CurAddr": "192.0.2.7:41641"}, "direct"),
        ({"Active": True}, "relayed"),
        ({"Active": True, "Relay": "", "PeerRelay": "192.0.2.9:7777:vni:1"}, "relayed"),
        ({"Active": True, "Relay": ""}, ""),
        ({"CurAddr": "192.0.2.7:41641"}, ""),
    ],
)
def test_the_path(how: dict[str, Any], path: str) -> None:
    _, node = parse_status(status(peer("web01", "100.64.0.2", **how)))
    assert node.path == path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(NEVER, None), ("2026-11-20T10:31:07.123456789Z", 1795170667), ("2026-11-20T12:31:07+02:00", 1795170667),
     ("", None), ("yesterday", None), ("0001-01-01T00:00:00-14:00", None)],
)  # fmt: skip
def test_when_it_was_last_seen(text: str, seconds: int | None) -> None:
    _, node = parse_status(status(peer("web01", "100.64.0.2", LastSeen=text)))
    assert (None if node.last_seen is None else int(node.last_seen)) == seconds


def test_sharees_and_exits_of_a_vpn_are_marked() -> None:
    _, plain, sharee, tagged, named = parse_status(
        status(
            peer("web01", "100.64.0.2"),
            peer("guest", "100.64.0.3", ShareeNode=True),
            peer("se-sto", "100.64.0.4", Tags=["tag:mullvad-exit-node"], ExitNodeOption=True),
            peer("se-got", "100.64.0.5", DNSName="se-got-wg-001.mullvad.ts.net."),
        )
    )
    assert [node.hidden for node in (plain, sharee, tagged, named)] == [False, True, True, True]


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"Peer": null, "Self": null}',
        b'{"BackendState": "Stopped", "Self": null, "Peer": null, "Health": ["x"]}',
    ],
)
def test_where_it_is_stopped_there_is_nobody(content: bytes) -> None:
    assert parse_status(content) == ()


def test_nulls_are_empty_and_a_node_that_can_not_be_read_is_left_out() -> None:
    nulls = dict.fromkeys(peer("x", "y"))
    odd = peer("odd", "100.64.0.9", TailscaleIPs="100.64.0.9")
    found = parse_status(status(nulls, odd, peer("web01", "100.64.0.2", TailscaleIPs=["100.64.0.2", "nonsense"])))
    assert [(node.name, node.addresses) for node in found[1:]] == [("", ()), ("web01", ("100.64.0.2",))]


def test_without_a_dns_name_the_host_name_stands() -> None:
    _, node = parse_status(status(peer("x", "100.64.0.2", DNSName="", HostName="Joshua's phone")))
    assert node.name == "Joshua's phone"


@pytest.mark.parametrize("content", [b"", b"failed to connect to local tailscaled", b"[]", b'{"Peer": []}', b"\xff"])
def test_what_is_no_status_is_told(content: bytes) -> None:
    with pytest.raises(WireError):
        parse_status(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*peer("x", "y"), "ShareeNode", "PeerRelay"]), JSON))
def test_whatever_a_node_holds_the_others_are_read(odd: dict[str, Any]) -> None:
    found = parse_status(status(odd, peer("web01", "100.64.0.2")))
    assert found[-1].name == "web01" and len(found) in (2, 3)
