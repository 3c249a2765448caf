"""A plain blocking connection to the coordinator, with nothing imported that one request doesn't need."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from pathlib import Path

from ..address import Address
from ..trust.identity import SERVER_NAME


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
