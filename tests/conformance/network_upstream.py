"""What a box may, and may not, connect to: a real web server on this machine, with TLS and without."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from debian import install


@dataclass(frozen=True, slots=True)
class Upstream:
    """Servers on 127.0.0.1 that answer every request with `hello` and their name; `/to/URL` redirects to the URL."""

    authority: Path
    """Certificate that the TLS server's own, for localhost and 127.0.0.1, can be checked by."""
    tls_port: int
    plain_port: int
    other_port: int
    """Of a second plain server, which nothing may reach."""
    visitors: list[str] = field(default_factory=list)
    """`server path` of every request."""

    @property
    def allowed(self) -> tuple[str, ...]:
        """A list for `Agent.net`: the first two servers, by name, and the addresses that the name stands for."""
        ports = (self.tls_port, self.plain_port)
        return tuple(f"{host}:{port}" for port in ports for host in ("localhost", "127.0.0.1", "[::1]"))


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """Serves until the block ends."""
    key, certificate = folder / "key.pem", folder / "authority.pem"
    _make_certificate(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    visitors: list[str] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_serve(name, visitors)) for name in ("tls", "plain", "other")]
        servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True, do_handshake_on_connect=False)
        yield Upstream(certificate, *(server.server_address[1] for server in servers), visitors)


@contextlib.contextmanager
def _serve(name: str, visitors: list[str]) -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            visitors.append(f"{name} {self.path}")
            body = f"hello {name}".encode()
            target = self.path.partition("/to/")[2]
            self.send_response(302 if target else 200)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass  # a client that breaks the handshake off is what some cases do

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _make_certificate(key: Path, certificate: Path) -> None:
    if shutil.which("openssl") is None:
        install("openssl")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
