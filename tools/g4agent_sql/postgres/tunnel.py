"""A way from a port of this process to a database server, through the box's proxy: libpq itself speaks to no proxy.

What is passed on is libpq's own connection, encrypted or not, so that certificates are checked as without a tunnel.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Thread
from urllib.parse import urlsplit

MAX_HEAD = 16 * 1024
CONNECT_SECONDS = 15.0
CHUNK = 64 * 1024


class Tunnel:
    """Listens on 127.0.0.1 and passes every connection on to `host` and `port`, until it is closed.

    Args:
        proxy: Its address, `http://host:port`.
        host: The server, which the proxy looks up.
        port: Its port.
    """

    def __init__(self, proxy: str, host: str, port: int) -> None:
        address = urlsplit(proxy)
        assert address.hostname is not None and address.port is not None
        self._proxy = (address.hostname, address.port)
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.refusal: str | None = None
        """Why the proxy refused, where it has."""
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; those that are open end with their two ends."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                here, _ = self._listener.accept()
                Thread(target=self._pass_on, args=(here,), daemon=True).start()

    def _pass_on(self, here: socket.socket) -> None:
        with here, suppress(OSError), socket.create_connection(self._proxy, CONNECT_SECONDS) as there:
            there.sendall(f"CONNECT {self._target} HTTP/1.1\r\nHost: {self._target}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head and len(head) < MAX_HEAD and (data := there.recv(1)):
                head += data  # byte by byte: what follows belongs to the server
            status = head.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
            if len(status) < 3 or status[1] != "200":
                self.refusal = status[2] if len(status) == 3 else "the proxy gave no answer"
                return
            there.settimeout(None)
            back = Thread(target=_copy, args=(there, here), daemon=True)
            back.start()
            _copy(here, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
