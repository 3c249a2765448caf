"""The lines that an admin hands on: typed on a machine, they make it one that commands run on, or are typed on."""

from __future__ import annotations

import shlex

from ..address import Address
from ..trust.tokens import TOKEN_VARIABLE
from ..wire.joining import Invitation
from .installers import quote_powershell


def plain_line(address: Address, *, client: bool = False) -> str:
    """Return the line for a network that is trusted."""
    return f"curl {shlex.quote(address.plain_url(f'/{_script(client)}.sh'))} | bash"


def pinned_line(invitation: Invitation, address: Address, *, client: bool = False, token: str = "") -> str:
    """Return the line for any network: curl takes the script from the holder of the server's key alone."""
    url = shlex.quote(address.tls_url(f"/{_script(client)}.sh"))
    bash = f"{TOKEN_VARIABLE}={shlex.quote(token)} bash" if token else "bash"
    return f"curl -fsSk --pinnedpubkey '{invitation.server_pin}' {url} | {bash}"


def powershell_line(invitation: Invitation, address: Address, *, client: bool = False, token: str = "") -> str:
    """Return the same for PowerShell, which can't pin a key: the script is compared with its SHA-256 before it runs."""
    name = f"{_script(client)}.ps1"
    url = quote_powershell(address.plain_url(f"/{name}"))
    steps = [
        f"$f = Join-Path $env:TEMP 'clustersh_{name}'",
        f"Invoke-WebRequest -UseBasicParsing {url} -OutFile $f",
        f"if ((Get-FileHash -Algorithm SHA256 $f).Hash -ne '{invitation.scripts[name]}')"
        " { Remove-Item $f; throw 'this is not the script that clusterd invite promised' }",
        *([f"$env:{TOKEN_VARIABLE} = {quote_powershell(token)}"] if token else []),
        "powershell -ExecutionPolicy Bypass -File $f",
    ]
    return "; ".join(steps)


def _script(client: bool) -> str:
    return "install_client" if client else "install"
