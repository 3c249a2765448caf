"""One connection to the coordinator that blocks, with nothing imported that a request doesn't need."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..address import Address, parse_address
from ..home import HomeError, read_json
from ..trust.identity import SERVER_NAME
from ..wire.codec import WireError, decode_json
from .state import LOGIN_FILE, PENDING_FILE, Login, client_folder

T = TypeVar("T")
CONNECT_S = 10.0
ANSWER_LIMIT = 4 << 20
FAILURES = (OSError, http.client.HTTPException, HomeError, WireError, ValueError)
"""What may go wrong; the full way says it to the user."""


def connect(home: Path, answer_s: float) -> http.client.HTTPConnection | None:
    """Return a connection of the user logged in at *home*, verified; None where nobody simply is.

    Each of its answers may take *answer_s* seconds. Raises OSError and the other FAILURES.
    """
    folder = client_folder(home)
    login = read_json(folder / LOGIN_FILE, Login)
    if login is None or (folder / PENDING_FILE).exists():
        return None
    return connect_blocking(parse_address(login.coordinator), folder, connect_s=CONNECT_S, answer_s=answer_s)


def get(connection: http.client.HTTPConnection, path: str, kind: type[T]) -> T | None:
    """GET *path* as *kind*; None where the answer is another one."""
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read(ANSWER_LIMIT + 1)
    return decode_json(content, kind) if response.status == 200 and len(content) <= ANSWER_LIMIT else None


def without_reactor(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of *work*, which waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("work that waits needs a reactor")


def connect_blocking(
    address: Address, folder: Path, *, connect_s: float, answer_s: float
) -> http.client.HTTPConnection:
    """Return a connection to the coordinator, verified, with the certificate in *folder*. Raises OSError."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    if os.name == "posix" and key.stat().st_mode & 0o077:
        raise OSError("the full way says what is wrong with that key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(certificate, key)
    connection = http.client.HTTPConnection(address.host, address.port)
    plain = socket.create_connection(address, connect_s)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection.sock = context.wrap_socket(plain, server_hostname=SERVER_NAME)
    except BaseException:
        plain.close()
        raise
    connection.sock.settimeout(answer_s)
    return connection
