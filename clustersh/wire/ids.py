"""Names and identifiers: machines, clients, and the UUIDv7 of a run."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

MACHINE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
CLIENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?(?:@[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?)?")
PLUGIN_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
NAME_LENGTH = 64
"""Characters of a machine's name, and of each part of a client's."""
RESERVED_NAMES = frozenset({"all"})
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,128}")
SHORT_LENGTH = 8
MAX_MILLISECONDS = 253_402_300_799_999
"""The last millisecond of the year 9999; no date can show a later one."""


def machine_name(text: str) -> str:
    """Fold *text* to a machine's name, or raise ValueError saying what a name may be."""
    name = text.strip().lower()
    if not MACHINE_NAME.fullmatch(name):
        raise ValueError(
            f"{text!r} can't be a machine's name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit first and last"
        )
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved: it means every machine")
    return name


def client_name(text: str) -> str:
    """Fold *text* (``user@host`` or one word) to a client's name, or raise ValueError."""
    name = text.strip().lower()
    if not CLIENT_NAME.fullmatch(name):
        raise ValueError(
            f"{text!r} can't be a client's name: use user@host, of a-z, 0-9, '.', '_' and '-', "
            "each part with a letter or digit first and last"
        )
    return name


def plugin_name(text: str) -> str:
    """Return *text* if a plugin can be called that, or raise ValueError."""
    if not PLUGIN_NAME.fullmatch(text):
        raise ValueError(f"{text!r} can't be a plugin's name: use 1 to 64 of a-z, 0-9 and '-', no '-' first or last")
    return text


def sha256_digits(text: str) -> str:
    """Fold *text*, a SHA-256 as people copy it (in capitals, with colons), to its 64 digits, or raise ValueError."""
    digits = text.replace(":", "").strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError(f"{text!r} is no SHA-256: 64 hex digits, with or without colons")
    return digits


def clean_name(text: str) -> str:
    """Make a part of a name out of whatever a host or user is called; never empty."""
    folded = re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:64].strip("._-")
    return folded or "unnamed"


class UuidMaker:
    """Makes UUIDv7s (RFC 9562) that rise even within a millisecond and when the clock steps back.

    *milliseconds* returns the time since 1970; *random_bits* returns that many random bits.
    """

    def __init__(
        self,
        milliseconds: Callable[[], int],
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._milliseconds = milliseconds
        self._random_bits = random_bits
        self._last = 0
        self._counter = 0

    def __call__(self) -> str:
        now = min(max(0, self._milliseconds()), MAX_MILLISECONDS)
        if now > self._last:
            self._last, self._counter = now, self._random_bits(11)
        else:
            self._counter += 1
            if self._counter > 0xFFF:
                self._last, self._counter = self._last + 1, 0
        value = (self._last << 80) | (7 << 76) | (self._counter << 64) | (2 << 62) | self._random_bits(62)
        return str(UUID(int=value))

    def follow(self, uuid: str) -> None:
        """Make only greater ones than *uuid* from now on."""
        value = UUID(uuid).int
        self._last, self._counter = max((self._last, self._counter), (value >> 80, value >> 64 & 0xFFF))


def uuid_time(uuid: str) -> datetime:
    """Return when the UUIDv7 *uuid* (see is_run_uuid) was made, in UTC; it says which day's folder a job is in."""
    return datetime.fromtimestamp((UUID(uuid).int >> 80) / 1000, UTC)


def is_run_uuid(text: str) -> bool:
    """Whether *text* is a whole UUIDv7 in its usual form (lower case, with dashes), of a time before the year 10000."""
    try:
        uuid = UUID(text)
    except ValueError:
        return False
    return uuid.version == 7 and str(uuid) == text and uuid.int >> 80 <= MAX_MILLISECONDS


def uuid_ending(text: str) -> str:
    """Return the hex digits of *text*, an identifier as a person types it: whole, or 8 or more digits from its end.

    Dashes and a leading ``…`` don't count. Raises ValueError where it is neither.
    """
    digits = text.strip().lstrip("…").replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{8,32}", digits):
        raise ValueError(f"{text!r} is no run: give its uuid, or at least its last {SHORT_LENGTH} digits")
    return digits


def short(uuid: str) -> str:
    """Return what tables show of *uuid*: its last 8 digits (its start is only time)."""
    return uuid[-SHORT_LENGTH:]
