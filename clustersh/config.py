"""One ``config.toml``, typed. Every error names the file, the key, what was found and what was expected."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from .address import DEFAULT_PORT, Address, parse_address
from .wire import ids, units

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Force: TypeAlias = Literal["self", "approve", "never"]
"""Who may pass a rule that blocks: the client itself, the client once an admin has allowed it, or nobody."""
RuleAction: TypeAlias = Literal["allow", "block", "deny"]


class ConfigError(Exception):
    """The configuration can't be used; the message says where, what was found, and what was expected."""


class Duration(float):
    """Seconds, written like ``90s``, ``10m`` or ``1h30m``."""


class Size(int):
    """Bytes, written like ``4096``, ``128KiB`` or ``10GiB``."""


class IdleTime(float):
    """Seconds that a standby waits for the next command, written like ``10m``; 0, written ``off``, is none at all."""


class Listen(str):
    """Where to listen, ``host:port``: ``*`` is every address, IPv4 and IPv6; port 0 is any free one."""

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


class NetworkText(str):
    """A network such as ``203.0.113.0/24``."""

    @property
    def network(self) -> Network:
        return ipaddress.ip_network(self)


class MachineName(str):
    """A machine's name."""


class PluginName(str):
    """What a plugin is called."""


class CoordinatorAddress(str):
    """Where a coordinator is, ``host:port``."""

    @property
    def address(self) -> Address:
        return parse_address(self)


class Fingerprint(str):
    """A SHA-256: 64 hex digits in lower case."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class JoinConfig(_Section, frozen=True):
    """``[join]``: which coordinator `clusteragent enroll` and `clustersh login` ask where they are told no other."""

    coordinator: CoordinatorAddress | None = None
    ca: Fingerprint | None = None


class CoordinatorConfig(_Section, frozen=True):
    """``[coordinator]``: its one door."""

    listen: Listen = Listen(f"*:{DEFAULT_PORT}")
    admin_from: tuple[NetworkText, ...] = ()
    reconnect_grace: Duration = Duration(5)
    blob_quota: Size = Size(10 << 30)
    reserve: Size = Size(64 << 20)


class EnrollmentConfig(_Section, frozen=True):
    """``[enrollment]``: who may ask to join, what a machine needs to be let in, and what it is part of then."""

    policy: Literal["open", "token", "approve"] = "open"
    new_machines: Literal["wait", "use"] = "wait"
    allow: tuple[NetworkText, ...] = ()
    tailnet_only: bool = False


class AgentConfig(_Section, frozen=True):
    """``[agent]``: how commands run on this machine."""

    name: MachineName | None = None
    environment: Literal["login", "service"] = "login"
    executor: PluginName | None = None
    grace: Duration = Duration(5)
    reconnect_max: Duration = Duration(60)
    blob_quota: Size = Size(1 << 30)
    reserve: Size = Size(64 << 20)

    def __post_init__(self) -> None:
        if not 1 <= self.reconnect_max <= 600:
            raise ValueError("reconnect_max: a duration between 1s and 10m")


class ClientConfig(_Section, frozen=True):
    """``[client]``: the frontend's own."""

    retry_for: Duration = Duration(120)
    standby: IdleTime = IdleTime(600)


class ClientPolicy(_Section, frozen=True):
    """``[policy.client."NAME"]``: what holds for the clients of that name or pattern, on every machine."""

    force: Force | None = None
    rules: dict[str, RuleAction] = {}
    targets: str | None = None
    machines_at_once: int | None = None
    jobs_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in ("machines_at_once", "jobs_per_minute"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= 1_000_000:
                raise ValueError(f"{name}: a number between 1 and 1000000")


class TargetPolicy(_Section, frozen=True):
    """``[policy.target."TARGET"]``: what holds on those machines, for every client."""

    force: Force | None = None
    rules: dict[str, RuleAction] = {}


class PolicyConfig(_Section, frozen=True):
    """``[policy]``: what is stopped, who may force it, and what clients may do at all."""

    force: Force = "self"
    rules: dict[str, RuleAction] = {}
    client: dict[str, ClientPolicy] = {}
    target: dict[str, TargetPolicy] = {}


class Config(_Section, frozen=True):
    """The whole of ``config.toml``; every key has a default, so the file may be missing."""

    join: JoinConfig = JoinConfig()
    coordinator: CoordinatorConfig = CoordinatorConfig()
    enrollment: EnrollmentConfig = EnrollmentConfig()
    agent: AgentConfig = AgentConfig()
    client: ClientConfig = ClientConfig()
    policy: PolicyConfig = PolicyConfig()


def load(home: Path) -> Config:
    """Read ``config.toml`` in *home*. Raises ConfigError."""
    path = home / "config.toml"
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return _convert(path, values)


def parse_listen(text: str) -> Listen:
    """Return where ``host:port``, ``[v6]:port``, ``:port`` or a bare port says. Raises ValueError."""
    found = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.%]+)\]|([^:\[\]/\s]*)):)?(\d{1,5})", text.strip())
    if not found or int(found[3]) > 65535:
        raise ValueError("expected an address such as '*:5672', '127.0.0.1:5672' or '[::1]:5672'")
    host = f"[{found[1]}]" if found[1] else found[2] or "*"
    return Listen(f"{host}:{int(found[3])}")


def _convert(path: Path, values: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(values, Config, dec_hook=_read_value)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(path, values, str(error))) from error


def _read_value(kind: type, value: Any) -> Any:
    """Make a *kind* of *value*; what the ValueErrors say is replaced by `_expected`."""
    if kind is Duration:
        return Duration(units.parse_duration(_text(value)))
    if kind is IdleTime:
        return IdleTime(0 if value in ("off", False) else units.parse_duration(_text(value)))
    if kind is Size:
        return Size(value if _is_count(value) else units.parse_size(_text(value)))
    if kind is Listen:
        return parse_listen(str(value) if _is_count(value) else _text(value))
    if kind is NetworkText:
        return NetworkText(ipaddress.ip_network(_text(value)))
    if kind is MachineName:
        return MachineName(ids.machine_name(_text(value)))
    if kind is PluginName:
        return PluginName(ids.plugin_name(_text(value)))
    if kind is CoordinatorAddress:
        return CoordinatorAddress(parse_address(_text(value)).netloc)
    if kind is Fingerprint:
        return Fingerprint(ids.sha256_digits(_text(value)))
    raise NotImplementedError(kind)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def _explain(path: Path, values: dict[str, Any], problem: str) -> str:
    """Turn msgspec's message into one that a person can act on."""
    what, _, where = problem.partition(" - at `$")
    keys = _keys(values, re.findall(r"\.([A-Za-z0-9_-]+)|\[(\d+|\.\.\.)\]", where.rstrip("`")))
    unknown = re.search(r"unknown field `([^`]*)`", what)
    if unknown:
        return _explain_unknown(path, keys, unknown[1])
    expected = _expected(_kind_at(keys))
    ranged = re.fullmatch(r"([a-z_]+): (.*)", what)
    if ranged:
        keys.append(ranged[1])
        expected = ranged[2]
    found: Any = values
    for key in keys:
        found = found[key]
    return f"{path}: {dotted(keys)}: found {found!r}; expected {expected}"


def _keys(values: Any, steps: list[tuple[str, str]]) -> list[str | int]:
    """Return the keys that msgspec's *steps* go by; it does not say which one of a mapping's (``[...]``)."""
    keys: list[str | int] = []
    for name, index in steps:
        key: str | int = name or index
        if index == "...":
            kind = get_args(_kind_at(keys))[1]
            key = next(each for each, value in values.items() if not _fits(value, kind))
        elif index:
            key = int(index)
        keys.append(key)
        values = values[key]
    return keys


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, dec_hook=_read_value)
    except msgspec.ValidationError:
        return False
    return True


def _explain_unknown(path: Path, keys: list[str | int], name: str) -> str:
    known = list(_kind_at(keys).__struct_fields__)
    close = difflib.get_close_matches(name, known, n=1)
    expected = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"{path}: {dotted([*keys, name])}: found a key that does not exist; {expected}"


def dotted(keys: list[str | int]) -> str:
    """Return the place that *keys* lead to, as TOML writes it."""
    texts = (
        f"[{key}]" if isinstance(key, int) else f".{key if re.fullmatch('[A-Za-z0-9_-]+', key) else json.dumps(key)}"
        for key in keys
    )
    return "".join(texts).removeprefix(".") or "the whole file"


def _kind_at(keys: list[str | int]) -> Any:
    """The type that the configuration has at *keys*."""
    kind: Any = Config
    for key in keys:
        if isinstance(key, int):
            kind = get_args(kind)[0]
        else:
            kind = get_args(kind)[1] if get_origin(kind) is dict else get_type_hints(kind)[key]
    return kind


def _expected(kind: Any) -> str:
    """Say in words what a value of *kind* looks like."""
    if get_origin(kind) is Literal:
        return " or ".join(f"'{value}'" for value in get_args(kind))
    if get_origin(kind) is dict:
        return f"a table, each of whose values is {_expected(get_args(kind)[1])}"
    if get_origin(kind) is tuple:
        return f"a list, each {_expected(get_args(kind)[0])}"
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    if choices:
        return _expected(choices[0])
    return _WORDS.get(kind, "a table ([section]) of keys")


_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    Duration: "a duration with its unit such as '90s', '10m' or '1h30m' ('0' for none), at most 366 days",
    IdleTime: "'off', or how long without a command, such as '10m'",
    Size: "a size such as '128KiB', '10GiB' or a number of bytes",
    Listen: "an address such as '*:5672', '127.0.0.1:5672' or '[::1]:5672'",
    NetworkText: "a network such as '203.0.113.0/24', its host bits zero",
    CoordinatorAddress: "a coordinator such as 'joshua-ws1' or '10.0.0.5:5672'",
    PluginName: "the name of an executor such as 'bash': 1 to 64 of a-z, 0-9 and '-', not a '-' first or last",
    Fingerprint: "a SHA-256: 64 hex digits, with or without colons",
    MachineName: "a machine's name, not 'all': 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last",
}
