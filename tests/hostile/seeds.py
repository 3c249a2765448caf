"""What each decoder is meant to take: the fuzzers begin with these and change them."""

from __future__ import annotations

import msgspec

from clustersh.coordinator import records
from clustersh.coordinator.wheelhouse import Contents, Fill, HeldWheel
from clustersh.trust import keys
from clustersh.trust.identity import Role
from clustersh.trust.pairing import commitment, make_request
from clustersh.trust.tokens import make_token
from clustersh.wire import checks, fleet, joining, link, output, pairing, rest
from clustersh.wire.codec import encode_json
from clustersh.wire.files import Entry, EntryKind, Manifest, encode_manifest
from clustersh.wire.jobs import BlobRef, Command, Outcome, OutputSummary, State
from clustersh.wire.output import Stream
from tests.hostile.decoders import DECODERS

UUID = "01a1fc23-f467-710e-b895-7e151ad2d257"
SHA256 = "a1" * 32
_WITNESS = link.Witness(7, SHA256)
_OUTPUT = OutputSummary(3, 2, SHA256, SHA256)
_RUNS = output.encode_runs([(Stream.STDOUT, 3), (Stream.STDERR, 2)])
_REQUEST = make_request(keys.generate(), "ann@box", Role.FRONTEND)
_ASKED = rest.RunRequest("ws1", Command(shell="true"), env={"A": "b"}, files=BlobRef(SHA256, 1))
_ENDED = records.JobEnded(UUID, "ws1", "id", Outcome.exited(0), _OUTPUT, 1.5, "2026-11-21T03:00:00.000Z")
_WHEEL = HeldWheel("zope_interface-7.2-1-cp311-abi3-win_amd64.whl", SHA256, 5, ">=3.9")
_WHEELS = Contents((Fill("win_amd64", "3.11", "win32", "AMD64", "2026-11-21T03:00:00.000Z", (_WHEEL,)),))

SEEDS: dict[str, list[bytes]] = {
    "wire.link from an agent": [
        link.encode(message)
        for message in (
            link.Hello("1", "i", "s", 5.0, link.Facts("linux/amd64")),
            link.Pulse(6.0),
            link.Started(UUID),
            link.Ended(UUID, Outcome(State.FAILED, signal=9), _OUTPUT, 1.0, b"abcde", _RUNS),
            link.Chunk(1, 0, b"abcde", 5, True, _RUNS),
            link.StdinTaken(1, 5, True),
            link.Failed(1, "internal", "no"),
        )
    ],
    "wire.link from a coordinator": [
        link.encode(message)
        for message in (
            link.Welcome(1, "ws1", (UUID,), _WITNESS),
            link.Start(1, 15.0, UUID, "ann@box", Command(argv=("a", "b")), _WITNESS, env={"A": "b"}),
            link.Cancel(UUID),
            link.Acknowledge(UUID, _WITNESS),
            link.Read(1, UUID, Stream.BOTH, 0, 5, 1.0),
            link.Stdin(1, UUID, 0, b"abc", True),
        )
    ],
    "http Host": [b"hub.example:5672", b"[fd00::5%eth0]:5672", b"10.0.0.5"],
    "coordinator wheelhouse": [encode_json(_WHEELS)],
    "wire.checks answer": [encode_json(checks.Answer((checks.Checked(True, "200 in 12 ms"),)))],
    "probe http": [b"http://web1:8080/health?deep=1", b"https://[::1]/"],
    "probe tcp": [b"22", b"db1:5432", b"[::1]:5432"],
    "probe service": [b"nginx.service"],
    "probe disk": [b"/var < 90%", b"~ > 1.5GiB free", b"C:\\ > 5% free"],
    "probe command": [b"test -f /etc/passwd"],
    "body RunRequest": [encode_json(_ASKED)],
    "body BlobNames": [encode_json(rest.BlobNames((SHA256,)))],
    "body PairStart": [encode_json(pairing.PairStart("frontend", _REQUEST, commitment(b"n" * 32)))],
    "body PairReveal": [encode_json(pairing.PairReveal(b"n" * 32, pairing.TokenProof("ab" * 6, b"p" * 32)))],
    "body CreateToken": [encode_json(joining.CreateToken(60.0, 5))],
    "body TokenId": [encode_json(joining.TokenId("ab" * 6))],
    "body ChangeGroup": [encode_json(fleet.ChangeGroup("web[01-10]", "web03", True))],
    "body ChangeLabels": [encode_json(fleet.ChangeLabels("all", {"gpu": "yes", "old": None}))],
    "coordinator target": [b"web[01-10,12]", b"@os:linux&all!@offline", b"db*,@new^a-[1-3]-[1,5]"],
    "tailscale status": [
        b'{"BackendState":"Running","Self":{"DNSName":"a.b.ts.net.","TailscaleIPs":["100.64.0.1"],"Online":true},'
        b'"Peer":{"k":{"DNSName":"c.b.ts.net.","TailscaleIPs":["fd7a::1"],"LastSeen":"0001-01-01T00:00:00Z",'
        b'"CurAddr":"","Relay":"fra","Active":true}}}'
    ],
    "wire.jobs command": [encode_json(_ASKED.command), b'{"argv":["a","b c"]}'],
    "wire.files manifest": [
        encode_manifest(
            Manifest(
                (
                    Entry(b"a", EntryKind.FOLDER, 0o700),
                    Entry(b"a/b", EntryKind.FILE, 0o644, SHA256, 3),
                    Entry(b"a/c", EntryKind.SYMLINK, target=b"b"),
                )
            )
        )
    ],
    "wire.output runs": [b"\0\5" + _RUNS],
    "trust.pairing request": [_REQUEST, _REQUEST.replace(b"\x02\x01\x00", b"\x02\x01\x31", 1)],
    "trust.tokens text": [make_token(b"k" * 32, "ab" * 6).text.encode()],
    "frontend frames": [b"\x01\0\0\0\x03abc\x02\0\0\0\x02de"],
    "coordinator ledger line": [
        records.to_line(records.Envelope(1, "2026-11-21T03:00:00.000Z", SHA256), record)
        for record in (
            _ENDED,
            records.Renamed("agent", "db1", "id", SHA256, "10.0.0.7", "token", "ws1", "ab" * 6),
            records.TokenCreated("ab" * 6, 5, "2026-11-21T04:00:00.000Z"),
        )
    ],
    "http Prefer": [b"wait=5", b'respond-async, wait="10"; x=y'],
    "http query": [b"limit=5&machine=ws1&status=failed&status=lost", b"machine=%C3%BC"],
    "http path": [b"/v1/jobs/ws1/%C3%BC"],
    "address": [b"[fe80::1%eth0]:80", b"http://joshua-ws1:5672/", b"[::1]:80", b"10.0.0.5"],
    "door first byte": [b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"],
    "home state file": [msgspec.json.encode({"name": "a", "number": 5})],
    "wire.ids uuid": [UUID.encode(), b"\xe2\x80\xa61ad2d257"],
    "wire.ids sha256": [SHA256.encode(), b":".join([b"A1"] * 32)],
    "wire.units duration": [b"1h30m"],
    "wire.units size": [b"1.5GB", b"128KiB"],
    "wire.units timestamp": [b"2026-11-20T10:31:07Z"],
}
assert SEEDS.keys() <= DECODERS.keys()
