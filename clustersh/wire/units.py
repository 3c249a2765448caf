"""Durations, sizes and times as people write and read them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal

_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_SIZE_STEPS = "kmgt"
MAX_DURATION_S = 366 * 86400.0


def parse_duration(text: str) -> float:
    """Return the seconds in ``90s``, ``10m``, ``1h30m``, ``2d``, ``250ms`` or a bare ``0``.

    Raises ValueError for anything else, a bare number without its unit included, and for more than 366 days.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"0+(?:\.0+)?", plain):
        return 0.0
    if not _DURATION.fullmatch(plain):
        raise ValueError(f"{text!r} is no duration: write it like 90s, 10m or 1h30m (0 for none)")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(plain))
    if not seconds <= MAX_DURATION_S:
        raise ValueError(f"{text!r} is too long: at most 366d")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Return *seconds* for people, in its two largest units: ``0.4s``, ``12s``, ``1m20s``, ``2h5m``, ``3d``."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f}s"
    rest, shown = round(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            shown.append((unit, count, size))
    first = shown[0]
    text = f"{first[1]}{first[0]}"
    if len(shown) > 1 and _is_next_unit(first[2], shown[1][2]):
        text += f"{shown[1][1]}{shown[1][0]}"
    return text


def _is_next_unit(larger: int, smaller: int) -> bool:
    return (larger, smaller) in ((86400, 3600), (3600, 60), (60, 1))


def format_timeout(seconds: float) -> str:
    """Return *seconds* in whole words, as in "timed out after 5 minutes"."""
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        count = seconds / size
        if count >= 1 and math.isclose(count, round(count)):
            return f"{round(count)} {unit}{'' if round(count) == 1 else 's'}"
    return format_duration(seconds)


def parse_size(text: str) -> int:
    """Return the bytes in ``128KiB``, ``4M``, ``1.5GB`` or ``4096``: K/M/G/T and Ki/Mi/... count 1024, KB/MB/... 1000.

    Raises ValueError for anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no size: write it like 4096, 128KiB, 4M or 1GB")
    number, step, binary = found.groups()
    power = _SIZE_STEPS.index(step.lower()) + 1 if step else 0
    decimal = text.strip().lower().endswith("b") and not binary
    size = int(Decimal(number) * (1000 if decimal else 1024) ** power)
    if size >= 2**63:
        raise ValueError(f"{text!r} is too large")
    return size


def format_size(count: int) -> str:
    """Return *count* bytes for people, in decimal units: ``17 B``, ``6.9 MB``."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def timestamp(seconds: float) -> str:
    """Return the wall-clock *seconds* since 1970 in RFC 3339 form, in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> float:
    """Return the seconds since 1970 of an RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.timestamp()
