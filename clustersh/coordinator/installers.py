"""The installers: templates in ``packaging/install/``, rendered for the address that a machine fetched them from.

A template has tokens such as ``@ADDRESS@`` where values go, each quoted for the language of the script; ``@COMMON@``
stands for ``common.sh`` or ``common.ps1``, with its own tokens filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from ..address import Address, parse_address

NAMES = ("install.sh", "install_client.sh", "install.ps1", "install_client.ps1")
_TOKEN = re.compile(r"@([A-Z][A-Z0-9_]*)@")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%\w-]{1,100}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{1,5}))?")
_UNUSABLE = (
    "this coordinator can't tell which address it was asked at, so it can't say where to join",
    "fetch the installer by the coordinator's name or address, without a proxy that changes the Host header",
)


class InstallerFacts(NamedTuple):
    """What a script carries. *scheme* is how it is fetched, http or https; *server_pin* is curl's for the server's key.

    *requirements* is what pip installs from the wheelhouse, on machines of the *kinds* that it holds all for: a line
    each, ``sys_platform platform_machine python_version``.
    """

    address: str
    scheme: str
    ca_sha256: str
    ca_pem: str
    server_pin: str
    version: str
    wheel_name: str
    wheel_sha256: str
    requirements: str
    kinds: str


def render(name: str, facts: InstallerFacts) -> str:
    """Return the installer *name*, one of NAMES."""
    quote = quoter(name)
    values = {field.upper(): quote(value) for field, value in facts._asdict().items()}
    common = _fill(_template(f"common.{name.rpartition('.')[2]}"), values)
    return _fill(_template(name), {**values, "COMMON": common.rstrip("\n")})


def render_error(name: str, message: str, hint: str) -> str:
    """Return a script in the language of *name* that says what is wrong and does nothing else."""
    quote = quoter(name)
    template = _template(f"error.{name.rpartition('.')[2]}")
    return _fill(template, {"MESSAGE": quote(f"ERROR: {message}"), "HINT": quote(f"hint: {hint}")})


def render_unaddressed(name: str) -> str:
    """Return the script for whoever gave no usable ``Host:``; nothing of what they gave is in it."""
    return render_error(name, *_UNUSABLE)


def address_of_host(headers: Sequence[bytes], scheme: str) -> Address:
    """Return the address that a request's ``Host:`` *headers* say. Raises ValueError unless there is a usable one.

    Without a port it is the scheme's, as for everyone who speaks HTTP.
    """
    if len(headers) != 1:
        raise ValueError("a request has one Host header")
    found = _HOST.fullmatch(headers[0].decode("ascii"))
    if not found:
        raise ValueError("a Host header is a host and a port")
    host, port = found.groups()
    return parse_address(f"{host}:{port or _DEFAULT_PORTS[scheme]}")


def quoter(name: str) -> Callable[[str], str]:
    """Return what quotes a value for the language of the script *name*."""
    return quote_powershell if name.endswith(".ps1") else quote_shell


def quote_shell(value: str) -> str:
    """Return *value* as one word of a shell script. Raises ValueError for what no shell word can hold."""
    if "\0" in value:
        raise ValueError("a shell word holds no NUL")
    return "'" + value.replace("'", "'\\''") + "'"


def quote_powershell(value: str) -> str:
    """Return *value* as one string of a PowerShell script, for which typographic quotes are quotes too."""
    return "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", value) + "'"


def _fill(template: str, values: dict[str, str]) -> str:
    return _TOKEN.sub(lambda found: values[found[1]], template)


@cache
def _template(name: str) -> str:
    folder = files("clustersh") / "packaging" / "install"
    return (folder / name).read_text(encoding="utf-8")
