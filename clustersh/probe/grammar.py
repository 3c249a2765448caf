"""What can be checked, as people type it. Each reader raises ValueError with a message for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..wire.units import parse_duration, parse_size

MAX_TEXT = 4096
"""Characters of one check."""
DEFAULT_TIMEOUT_S = 10.0
_ENDPOINT = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]/@]+):)?(?P<port>[0-9]{1,5})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%")
_ROOTED = re.compile(r"/|~|[A-Za-z]:[\\/]|\\\\")
_UNIT = re.compile(r"[^-\s*?\[\]/\"'][^*?\[\]/\"']{0,255}")
_URL_FORM = "write it like http://localhost:8080/health"
_DISK_FORM = "write it like '/ < 90%' (used), '/ > 10GB free' or '/ > 5% free'"


class Url(NamedTuple):
    """Where to ask by HTTP: *path* with its query."""

    secure: bool
    host: str
    port: int
    path: str


class Endpoint(NamedTuple):
    """Where to connect to by TCP."""

    host: str
    port: int


class DiskRule(NamedTuple):
    """How full the file system of *path* may be: less than *used* percent, more than *free* bytes or percent.

    Exactly one of these three is not None.
    """

    path: str
    used_percent: float | None = None
    free_percent: float | None = None
    free_bytes: int | None = None


def read_url(text: str) -> Url:
    """Return the address in *text*; which no error repeats, for there may be a password in it."""
    from urllib.parse import urlsplit

    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("that is no URL: spaces and all but ASCII are written like %20")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"that is no URL: {_URL_FORM}") from None  # the cause repeats parts of it
    if "@" in parts.netloc:
        raise ValueError("a user or a password in a URL would be recorded with the command line: check it by --command")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"that is no URL: {_URL_FORM}")
    secure = parts.scheme == "https"
    query = f"?{parts.query}" if parts.query else ""
    return Url(secure, host, port or (443 if secure else 80), (parts.path or "/") + query)


def read_endpoint(text: str) -> Endpoint:
    """Return the host and the port in *text*; without a host it is the machine itself."""
    found = _ENDPOINT.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(f"{text!r} is no port: write it like 5432, db1:5432 or [::1]:5432")
    return Endpoint((found["host"] or "localhost").strip("[]"), int(found["port"]))


def read_unit(text: str) -> str:
    """Return the name of a service."""
    if not _UNIT.fullmatch(text) or not text.isprintable():
        raise ValueError(f"{text!r} is no service: write it as its manager does, like nginx or nginx.service")
    return text


def read_disk(text: str) -> DiskRule:
    """Return the rule in *text*: ``/ < 90%``, ``/ > 10GB free``, ``/ > 5% free``."""
    at = max(text.rfind("<"), text.rfind(">"))
    path, amount = text[:at].strip(), text[at + 1 :].strip()
    if at < 0 or not _ROOTED.match(path) or not path.isprintable():
        raise ValueError(f"{text!r} is no whole path and a limit: {_DISK_FORM}")
    number, what = amount, ""
    for word in ("used", "free"):
        if amount.lower().endswith(f" {word}"):
            number, what = amount[: -len(word)].strip(), word
    percent = _percent(number)
    if text[at] == "<":
        if percent is None or what == "free":
            raise ValueError(f"{text!r}: what is less than something is the used part, in percent; {_DISK_FORM}")
        return DiskRule(path, used_percent=percent)
    if what != "free":
        raise ValueError(f"{text!r}: what is more than something is free: {_DISK_FORM}")
    if percent is not None:
        return DiskRule(path, free_percent=percent)
    return DiskRule(path, free_bytes=parse_size(number))


def read_command(text: str) -> str:
    """Return a shell line."""
    if not text.strip() or "\0" in text:
        raise ValueError("the command to check is empty" if not text.strip() else "a command can't hold a NUL")
    return text


READERS: dict[str, Callable[[str], Any]] = {
    "http": read_url,
    "tcp": read_endpoint,
    "service": read_unit,
    "disk": read_disk,
    "command": read_command,
}
"""The kinds of checks, each with what reads its text."""


def read(kind: str, text: str) -> Any:
    """Return what *text* says for a check of that *kind*."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"a check is at most {MAX_TEXT} characters")
    return READERS[kind](text)


def _percent(text: str) -> float | None:
    found = _PERCENT.fullmatch(text)
    if not found:
        return None
    if float(found[1]) > 100:
        raise ValueError(f"{text} is more than there is")
    return float(found[1])


def read_options(words: Sequence[str]) -> tuple[float, list[tuple[str, str]]]:
    """Return the seconds that *words* (``--tcp 22 --timeout 5s``) leave each check, and the checks: kind and text.

    Raises ValueError.
    """
    if len(words) % 2:
        raise ValueError(f"nothing follows {words[-1]!r}: write it like --tcp 22")
    timeout_s, checks = DEFAULT_TIMEOUT_S, []
    for option, text in zip(words[::2], words[1::2], strict=True):
        kind = option.removeprefix("--")
        if option == "--timeout":
            timeout_s = parse_duration(text)
        elif option == f"--{kind}" and kind in READERS:
            checks.append((kind, text))
        else:
            raise ValueError(f"there is no check {option!r}")
    return timeout_s, checks
