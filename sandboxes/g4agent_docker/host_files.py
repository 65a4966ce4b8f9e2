"""A root file system from this host's own files: programs with their libraries, Python, packages."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path

from g4agent.errors import ConfigError

PYTHON_HOME = "/opt/python"
PATH = f"{PYTHON_HOME}/bin:/usr/local/bin:/usr/bin:/bin"
REQUIRED = """
awk basename bash cat chmod cmp cp cut date dd df diff dirname du env expr false find grep gunzip gzip head id kill ln
ls md5sum mkdir mkfifo mknod mktemp mv nice nproc od printf ps pwd readlink realpath rm rmdir sed seq setsid sh
sha256sum sleep sort stat tail tar tee test timeout touch tr true truncate uname uniq wc which xargs yes
"""
OPTIONAL = ("bzip2", "curl", "dmesg", "file", "git", "jq", "less", "make", "patch", "rg", "su", "unzip", "xz", "zip")
FILES = ("/etc/ld.so.cache", "/etc/ssl/certs/ca-certificates.crt", "/usr/lib/locale/C.utf8", "/usr/share/git-core")
LEFT_OUT = re.compile(r"/(site-packages|dist-packages|tests?|idlelib|tkinter|turtledemo|ensurepip)(/|$)")
"""Parts of Python's own library that no tool needs."""
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def python_identity() -> list[str]:
    """What tells this interpreter from another one."""
    return [sys.version, sys.base_prefix]


def write_root(archive: tarfile.TarFile, packages: Iterable[Distribution], passwd: str) -> None:
    """Writes a whole root file system.

    Raises:
        ConfigError: A required program is not installed.
    """
    for folder in ("etc", "tmp", "run", "proc", "sys", "dev", "workspace", "opt/g4agent", "usr/bin", "usr/lib"):
        _add_folder(archive, folder)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (path := Path("/") / name).is_symlink():
            archive.add(path, name)
    root = _Root(archive)
    required = REQUIRED.split()
    for name in (*required, *OPTIONAL):
        if (found := shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")) is not None:
            root.add_program(Path(found))
        elif name in required:
            raise ConfigError(f"this host has no program {name}, which the image needs", hint="Install it.")
    for name in FILES:
        root.add_tree(Path(name), name)
    _add_python(root, archive, packages)
    add_text(archive, "etc/passwd", passwd)
    add_text(archive, "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    add_text(archive, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")


def add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    """Adds a small file that anybody may read."""
    member = tarfile.TarInfo(name)
    data = text.encode()
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    # the runtime gives a private /tmp the mode of the image's
    member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    archive.addfile(member)


def _add_python(root: _Root, archive: tarfile.TarFile, packages: Iterable[Distribution]) -> None:
    """The interpreter and its standard library, which find each other wherever they lie, and the packages."""
    interpreter = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    root.add_program(interpreter, f"{PYTHON_HOME}/bin/python3")
    library = Path(sysconfig.get_path("stdlib"))
    root.add_tree(library, f"{PYTHON_HOME}/lib/{library.name}")
    names = {"base": PYTHON_HOME, "platbase": PYTHON_HOME}
    site = sysconfig.get_path("purelib", vars=names, scheme=sysconfig.get_preferred_scheme("prefix"))
    for package in packages:
        for file in package.files or ():
            if ".." not in file.parts:
                root.add_tree(Path(str(file.locate())), f"{site}/{file}")


class _Root:
    """Adds files, each once, and with every binary the libraries that it is linked to."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._added: set[str] = set()

    def add_program(self, path: Path, name: str | None = None) -> None:
        """A program, the links on the way to it, and its libraries; under another name if one is given."""
        self._add(path.resolve(), name or str(_unmerged(path.resolve())))
        if name is None:
            while path.is_symlink():
                self._add(path, str(_unmerged(path)))
                path = path.parent / path.readlink()
        self._add_libraries(path)

    def add_tree(self, path: Path, name: str) -> None:
        """A file, or everything below a folder."""
        if path.is_file() or path.is_symlink():
            self._add(path.resolve(), name)
            if ".so" in path.name:
                self._add_libraries(path)
        elif path.is_dir():
            for child in sorted(path.iterdir()):
                if not LEFT_OUT.search(f"{name}/{child.name}") or "packages/" in name:
                    self.add_tree(child, f"{name}/{child.name}")

    def _add_libraries(self, path: Path) -> None:
        listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        for library in LIBRARY.findall(listed):
            self._add(Path(library).resolve(), str(_unmerged(Path(library))))

    def _add(self, path: Path, name: str) -> None:
        if name in self._added or not (path.is_file() or path.is_symlink()):
            return
        self._added.add(name)
        member = self._archive.gettarinfo(str(path), name)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        if member.issym():
            self._archive.addfile(member)
            return
        member.type, member.size = tarfile.REGTYPE, os.path.getsize(path)  # a hard link's other name is not in here
        with path.open("rb") as file:
            self._archive.addfile(member, file)


def _unmerged(path: Path) -> Path:
    """The path with its folder's links followed, and its own last part as it is: `/bin/sh` is `/usr/bin/sh`."""
    return path.parent.resolve() / path.name
