"""Real HTTP servers on loopback, in threads, that answer well or badly."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Handler(http.server.BaseHTTPRequestHandler):
    """``/status/N`` answers N, ``/to?URL`` leads there, ``/loop`` to itself, ``/endless`` has a body without an end."""

    def do_GET(self) -> None:
        if self.path.startswith("/status/"):
            self._answer(int(self.path.rpartition("/")[2]))
        elif self.path.startswith("/to?"):
            self._answer(302, self.path.partition("?")[2])
        elif self.path == "/loop":
            self._answer(302, "/loop")
        elif self.path == "/endless":
            self._answer(200)
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()


@contextlib.contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve `Handler`, over TLS with *context*; yield its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with _in_thread(server.serve_forever):
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def socket_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Hand each connection to *talk*, with what is set when it is to end; yield the port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if over.is_set():
                        return
                    with connection, contextlib.suppress(OSError):
                        talk(connection, over)

        with _in_thread(serve):
            try:
                yield port
            finally:
                over.set()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    pass


@contextlib.contextmanager
def _in_thread(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
        assert not thread.is_alive()


def server_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return what a TLS server for 127.0.0.1 needs, and the certificate of its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return context, pem
