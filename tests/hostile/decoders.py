"""Every decoder that takes bytes from the network or from a file, each as a function of bytes that may not crash.

Each takes any bytes at all and returns, or raises only the error that it says; anything else is a finding. Both the
property tests and the longer runs (fuzz/) call these.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from clustersh import tailscale
from clustersh.address import parse_address
from clustersh.cli.errors import CliError
from clustersh.coordinator import expressions, records
from clustersh.coordinator.door import DoorFactory, _FirstByte
from clustersh.coordinator.http import Request, path_text, wait_seconds
from clustersh.coordinator.installers import address_of_host
from clustersh.coordinator.turns import Turns
from clustersh.coordinator.wheelhouse import Contents
from clustersh.frontend.reading import FrameDecoder
from clustersh.home import HomeError, read_json
from clustersh.probe import grammar
from clustersh.trust.errors import PairingError
from clustersh.trust.pairing import read_request
from clustersh.trust.tokens import read_token
from clustersh.wire import checks, fleet, ids, joining, link, output, pairing, rest, units
from clustersh.wire.codec import WireError, decode_json, encode_json
from clustersh.wire.files import check_manifest, decode_manifest, encode_manifest
from clustersh.wire.jobs import Command
from clustersh.wire.problems import Problem, ProblemError

__all__ = ["DECODERS"]

T = TypeVar("T")


def from_agent(data: bytes) -> None:
    try:
        message = link.decode_from_agent(data)
    except WireError:
        return
    assert link.decode_from_agent(link.encode(message)) == message
    encode_json(message)


def from_coordinator(data: bytes) -> None:
    try:
        message = link.decode_from_coordinator(data)
    except WireError:
        return
    assert link.decode_from_coordinator(link.encode(message)) == message


def body_of(kind: type[msgspec.Struct]) -> Callable[[bytes], None]:
    """Return the decoder of one kind of REST body."""

    def decode(data: bytes) -> None:
        try:
            body = decode_json(data, kind)
        except WireError:
            return
        again = encode_json(body)
        assert encode_json(decode_json(again, kind)) == again

    return decode


def command_text(data: bytes) -> None:
    try:
        command = decode_json(data, Command)
    except WireError:
        return
    assert isinstance(command.text, str)


def manifest(data: bytes) -> None:
    try:
        found = decode_manifest(data)
    except WireError:
        return
    check_manifest(found)
    assert decode_manifest(encode_manifest(found)) == found
    for entry in found.entries:
        inside = Path("/jobs/one") / Path(entry.path.decode(errors="surrogateescape"))
        assert ".." not in inside.parts and inside.is_relative_to("/jobs/one")


def runs(data: bytes) -> None:
    """The first two bytes say how long the data is that the run lengths come with."""
    size = int.from_bytes(data[:2], "big")
    content, lengths = b"x" * size, data[2:]
    try:
        output.check_runs(content, lengths)
    except output.RunsError:
        return
    stdout, stderr = output.split(content, lengths)
    assert len(stdout) + len(stderr) == size


def pairing_request(data: bytes) -> None:
    try:
        found = read_request(data)
    except PairingError:
        return
    assert len(found.name) <= 160


def join_token(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        found = read_token(text)
    except ValueError as error:
        assert str(error).startswith("that is no join token")  # and nothing of what was given
        return
    assert found.text == text.strip().lower()


def frames(data: bytes) -> None:
    """The same bytes in one piece and in many make the same frames, or fail alike."""
    whole, pieces = _frames([data]), _frames([data[at : at + 3] for at in range(0, len(data), 3)])
    assert _joined(whole) == _joined(pieces) or whole is None or pieces is None


def _frames(pieces: list[bytes]) -> list[tuple[Any, bytes]] | None:
    decoder, found = FrameDecoder(), []
    try:
        for piece in pieces:
            found += list(decoder.feed(piece))
    except CliError:
        return None
    return found


def _joined(found: list[tuple[Any, bytes]] | None) -> dict[Any, bytes]:
    streams: dict[Any, bytes] = {}
    for stream, piece in found or []:
        streams[stream] = streams.get(stream, b"") + piece
    return streams


def ledger_line(data: bytes) -> None:
    for read in (records.read_envelope, records.read_record):
        try:
            read(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            continue


class _Headers:
    def __init__(self, value: bytes) -> None:
        self._value = value

    def getRawHeaders(self, name: bytes, default: object = None) -> list[bytes]:
        return [self._value]


class _Asked:
    """As much of a request as the parsers of its head look at."""

    def __init__(self, data: bytes) -> None:
        self.requestHeaders = _Headers(data)
        self.uri = b"/v1/jobs?" + data

    def setHeader(self, name: bytes, value: bytes) -> None:
        assert b"\n" not in value and b"\r" not in value


def prefer(data: bytes) -> None:
    assert 0 <= wait_seconds(cast(Request, _Asked(data))) <= rest.MAX_WAIT_S


class _Query(msgspec.Struct):
    limit: int = 100
    machine: str = ""
    status: tuple[str, ...] = ()


def query(data: bytes) -> None:
    try:
        found = Request.query(cast(Request, _Asked(data)), _Query)
    except ProblemError:
        return
    assert isinstance(found, _Query)


def path(data: bytes) -> None:
    try:
        path_text(data)
    except ProblemError:
        return


def text_of(parse: Callable[[str], object]) -> Callable[[bytes], None]:
    """Return the decoder of something that a person types."""

    def decode(data: bytes) -> None:
        try:
            parse(data.decode(errors="surrogateescape"))
        except ValueError:
            return

    return decode


def target(data: bytes) -> None:
    """What a target is written like; what it means is another matter."""
    try:
        operands = expressions.read(data.decode(errors="surrogateescape"))
    except ProblemError:
        return
    assert operands


def tailnet(data: bytes) -> None:
    try:
        tailscale.parse_status(data)
    except ValueError:
        return


def address(data: bytes) -> None:
    try:
        found = parse_address(data.decode(errors="surrogateescape"))
    except ValueError:
        return
    assert parse_address(found.netloc) == found
    assert found.netloc.isascii() and found.netloc.isprintable() and " " not in found.netloc


def host(data: bytes) -> None:
    try:
        found = address_of_host([data], "http")
    except ValueError:
        return
    assert parse_address(found.netloc) == found
    assert found.netloc.isascii() and found.netloc.isprintable() and " " not in found.netloc


class _Door:
    """What the first byte chooses between."""

    def __init__(self) -> None:
        self.chose: list[int] = []
        self.got = b""
        self.turns = Turns(Clock())

    def enter(self, transport: object, host: str) -> bool:
        return True

    def callLater(self, seconds: float, call: object, *args: object) -> _Door:
        return self

    def cancel(self) -> None:
        self.chose.append(-1)

    @property
    def crowd(self) -> _Door:
        return self

    @property
    def reactor(self) -> _Door:
        return self

    def chosen(self, first: int) -> _Door:
        self.chose.append(first)
        return self

    def buildProtocol(self, peer: object) -> _Door:
        return self

    def makeConnection(self, transport: object) -> None:
        self.chose.append(-2)

    def dataReceived(self, data: bytes) -> None:
        self.got += data


def first_byte(data: bytes) -> None:
    door = _Door()
    protocol = _FirstByte(cast(DoorFactory, door))
    protocol.makeConnection(StringTransport())
    if not data:
        return
    protocol.dataReceived(data)
    assert door.chose == [-1, data[0], -2] and door.got == data


class _Kept(msgspec.Struct):
    name: str
    number: int = 0


def run_json(data: bytes) -> None:
    """A state file, as a crash or another program may have left it."""
    _in_file(data, _Kept)


def wheel_list(data: bytes) -> None:
    contents = _in_file(data, Contents)
    if contents is not None:
        contents.requirements()
        assert all("/" not in name for name in contents.wheels())


def _in_file(data: bytes, kind: type[T]) -> T | None:
    descriptor, name = tempfile.mkstemp(prefix="clustersh-fuzz-")
    os.write(descriptor, data)
    os.close(descriptor)
    try:
        return read_json(Path(name), kind)
    except HomeError:
        return None
    finally:
        Path(name).unlink()


BODIES: tuple[type[msgspec.Struct], ...] = (
    rest.RunRequest,
    rest.BlobNames,
    rest.Approve,
    rest.NameOf,
    joining.CreateToken,
    joining.TokenId,
    joining.TokenMade,
    joining.Tokens,
    rest.Run,
    rest.JobPage,
    rest.Machines,
    rest.Whoami,
    rest.StdinProgress,
    rest.Ends,
    fleet.Plan,
    fleet.TargetView,
    fleet.Groups,
    fleet.ChangeGroup,
    fleet.DeleteGroup,
    fleet.GroupChanged,
    fleet.ChangeLabels,
    fleet.Labels,
    fleet.LabelsChanged,
    pairing.PairStart,
    pairing.PairOffer,
    pairing.PairReveal,
    pairing.PairProgress,
    Problem,
)

DECODERS: dict[str, Callable[[bytes], None]] = {
    "wire.link from an agent": from_agent,
    "wire.link from a coordinator": from_coordinator,
    **{f"body {kind.__name__}": body_of(kind) for kind in BODIES},
    "wire.jobs command": command_text,
    "wire.files manifest": manifest,
    "wire.output runs": runs,
    "wire.checks answer": body_of(checks.Answer),
    **{f"probe {kind}": text_of(reader) for kind, reader in grammar.READERS.items()},
    "trust.pairing request": pairing_request,
    "trust.tokens text": join_token,
    "frontend frames": frames,
    "coordinator ledger line": ledger_line,
    "http Prefer": prefer,
    "http query": query,
    "http path": path,
    "http Host": host,
    "coordinator wheelhouse": wheel_list,
    "coordinator target": target,
    "tailscale status": tailnet,
    "address": address,
    "door first byte": first_byte,
    "home state file": run_json,
    "wire.ids machine name": text_of(ids.machine_name),
    "wire.ids client name": text_of(ids.client_name),
    "wire.ids uuid": text_of(ids.uuid_ending),
    "wire.ids sha256": text_of(ids.sha256_digits),
    "wire.units duration": text_of(units.parse_duration),
    "wire.units size": text_of(units.parse_size),
    "wire.units timestamp": text_of(units.parse_timestamp),
}
