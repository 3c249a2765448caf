"""What a soak does, all of it from its seed: which commands are run, and what is broken when."""

from __future__ import annotations

import hashlib
import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

NOISE = 4 << 20
"""Bytes of pseudo-random content that commands print pieces of."""


class Kind(StrEnum):
    """What a command does besides printing."""

    PLAIN = "plain"
    SLOW = "slow"  # it takes its time between its first output and its last
    OVERDUE = "overdue"  # its time-out ends it, and the child that went into a session of its own
    CANCELLED = "cancelled"  # its client cancels it
    FILES = "files"  # it needs a file that came with it
    STDIN = "stdin"  # it prints what its client feeds it


_KINDS = {Kind.PLAIN: 68, Kind.SLOW: 12, Kind.OVERDUE: 3, Kind.CANCELLED: 3, Kind.FILES: 7, Kind.STDIN: 7}
_PROGRAMS_ONLY = (Kind.FILES, Kind.STDIN)
_FORMS = (("--full", "--json"), ("--full",), ("--full", "--follow"))
_SIZES = ((20, 0), (45, 1 << 10), (22, 64 << 10), (10, 256 << 10), (3, 1 << 20))
"""(weight, most bytes) of what a stream prints."""


@dataclass(frozen=True)
class Piece:
    """A part of the noise that is printed on one stream."""

    stream: int
    offset: int
    length: int


@dataclass(frozen=True)
class Work:
    """One command: *id* is its idempotency key too, and what it appends to its machine's file of what ran."""

    id: str
    machine: str
    kind: Kind
    first: tuple[Piece, ...]
    pause_s: float
    last: tuple[Piece, ...]
    exit_code: int
    form: tuple[str, ...]
    fed: Piece | None = None

    @property
    def timeout_s(self) -> float:
        return 1.0 if self.kind is Kind.OVERDUE else 60.0

    @property
    def waits(self) -> bool:
        """Whether it takes longer than its output."""
        return self.kind in (Kind.SLOW, Kind.OVERDUE, Kind.CANCELLED)

    def input(self, noise: bytes) -> bytes | None:
        """Return what it is fed, if so."""
        return None if self.fed is None else noise[self.fed.offset : self.fed.offset + self.fed.length]

    def expected(self, noise: bytes) -> tuple[bytes, bytes]:
        """Return what it prints on stdout and on stderr when it isn't ended before."""
        streams = [b"", b""]
        fed = () if self.fed is None else (self.fed,)
        for piece in (*self.first, *fed, *self.last):
            streams[piece.stream - 1] += noise[piece.offset : piece.offset + piece.length]
        return streams[0], streams[1]

    def shell(self, folder: Path) -> str:
        """Return the command line; *folder* has the noise and the files of what ran."""
        noise = shlex.quote(str(folder / "noise"))
        lines = [f"echo {self.id} >>{shlex.quote(str(ran_file(folder, self.machine)))}"]
        lines += [_print(noise, piece) for piece in self.first]
        if self.kind is Kind.SLOW:
            lines.append(f"sleep {self.pause_s:.2f}")
        elif self.kind is Kind.OVERDUE:
            lines += ["setsid sleep 300 &", "sleep 300"]
        elif self.kind is Kind.CANCELLED:
            lines.append("sleep 30")
        elif self.kind is Kind.STDIN:
            lines.append("cat")
        lines += [_print(noise, piece) for piece in self.last]
        if self.kind is Kind.FILES:
            lines.append("test -f sent || exit 99")
        return "\n".join([*lines, f"exit {self.exit_code}"])


def _print(noise: str, piece: Piece) -> str:
    where = " >&2" if piece.stream == 2 else ""
    flags = "iflag=skip_bytes,count_bytes status=none"
    return f"dd if={noise} bs=64K {flags} skip={piece.offset} count={piece.length}{where}"


def ran_file(folder: Path, machine: str) -> Path:
    """Return the file that every command on *machine* appends its id to."""
    return folder / "ran" / machine


def make_noise(seed: int) -> bytes:
    return random.Random(f"{seed}/noise").randbytes(NOISE)


def make_work(seed: int, number: int, machines: tuple[str, ...], *, program: bool) -> Work:
    """Return the soak's command *number*; *program*: its client is a whole program."""
    dice = random.Random(f"{seed}/work/{number}")
    kind = dice.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind in _PROGRAMS_ONLY and not program:
        kind = Kind.PLAIN
    sizes = [_size(dice), _size(dice)]
    first, last = [], []
    for stream, size in enumerate(sizes, 1):
        offset = dice.randrange(NOISE - size)
        half = dice.randint(0, size)
        first.append(Piece(stream, offset, half))
        last.append(Piece(stream, offset + half, size - half))
    return Work(
        id=f"soak-{seed}-{number}",
        machine=dice.choice(machines),
        kind=kind,
        first=tuple(piece for piece in first if piece.length),
        pause_s=dice.uniform(0.1, 3.0),
        last=tuple(piece for piece in last if piece.length),
        exit_code=dice.choice((0, 0, 0, 1, 7)),
        form=dice.choice(_FORMS),
        fed=_piece(dice, _size(dice)) if kind is Kind.STDIN else None,
    )


def _piece(dice: random.Random, size: int) -> Piece:
    return Piece(1, dice.randrange(NOISE - size), size)


def _size(dice: random.Random) -> int:
    return dice.randint(0, dice.choices([most for _, most in _SIZES], [weight for weight, _ in _SIZES])[0])


@dataclass(frozen=True)
class Fault:
    """Something that breaks *at* seconds after the start and is well again *seconds* later."""

    at: float
    target: str
    how: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.2f}s {self.target}: {self.how} {self.seconds:.2f}s"


_SERVICE = {"kill": 6, "terminate": 1, "freeze": 1}
_LINK = {"cut": 4, "refuse": 2, "stall": 3, "delay": 2}


def make_faults(seed: int, seconds: float, services: tuple[str, ...], links: tuple[str, ...]) -> list[Fault]:
    """Return what happens in *seconds*, in order; never two faults of one target at a time."""
    faults: list[Fault] = []
    for targets, kinds, every_s, longest_s in ((services, _SERVICE, 6.0, 2.5), (links, _LINK, 4.0, 4.0)):
        for target in targets:
            dice = random.Random(f"{seed}/faults/{target}")
            faults += _faults_of(dice, target, kinds, seconds, every_s, longest_s)
    return sorted(faults, key=lambda fault: fault.at)


def _faults_of(
    dice: random.Random, target: str, kinds: dict[str, int], seconds: float, every_s: float, longest_s: float
) -> Iterator[Fault]:
    at = 1.0 + dice.expovariate(1 / every_s)
    while at < seconds:
        how = dice.choices(list(kinds), list(kinds.values()))[0]
        for_s = 0.0 if how == "cut" else dice.uniform(0.1, longest_s)
        if how in ("freeze", "stall") and dice.random() < 0.15:
            for_s += 12.0  # longer than a start may take
        yield Fault(at, target, how, for_s)
        at += for_s + 1.5 + dice.expovariate(1 / every_s)


def digest(data: bytes) -> str:
    """Return the SHA-256 as results carry it: none for no bytes."""
    return hashlib.sha256(data).hexdigest() if data else ""
