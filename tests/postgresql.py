"""A PostgreSQL server for the tests: Debian's, on a unix socket in a temporary folder, ended with the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debian import install

USER = "postgres"
ACCESS = f"local all {USER} trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
"""Who gets in: the administrator by the socket, all others with a password."""


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`; as root, Debian's package is installed where it is missing."""
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        if found:
            return found[-1].parent
        if (other := shutil.which("pg_ctl")) is not None:
            return Path(other).resolve().parent
        if attempt == 0:
            install("postgresql")
    raise AssertionError("no PostgreSQL: apt-get install postgresql")


@contextmanager
def server(port: int | None = None) -> Iterator[str]:
    """Starts a server; yields its URL without a database's name, to be completed as in `url % "name"`.

    Args:
        port: Also of 127.0.0.1; None: it has nothing but its socket, that of port 5432.
    """
    bin = programs()
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        place = Path(folder)
        if root:
            shutil.chown(place, USER)

        def run(*command: str) -> None:
            prefix = ["runuser", "-u", USER, "--"] if root else []
            done = subprocess.run([*prefix, *command], cwd=place, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr

        data = str(place / "data")
        run(str(bin / "initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        (place / "data" / "pg_hba.conf").write_text(ACCESS)
        listen = "-c listen_addresses=''" if port is None else f"-c listen_addresses=127.0.0.1 -p {port}"
        options = f"-k {place} {listen} -c fsync=off"
        run(str(bin / "pg_ctl"), "-D", data, "-w", "-l", str(place / "log"), "-o", options, "start")
        try:
            yield f"postgresql://{USER}@/%s?host={place}&port={port or 5432}"
        finally:
            run(str(bin / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
