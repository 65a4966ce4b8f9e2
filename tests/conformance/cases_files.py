"""File system cases. Each docstring says what a failing sandbox lets through."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import anyio
import pytest
from sandbox_case import case, number, python, shell
from sandbox_host import Host

from g4agent.errors import WorkspacePathError
from g4agent.ports.sandbox import Box, MiB


@case(starred=True)
async def f01_host_files(box: Box, host: Host) -> None:
    """A file of the host, or its password hashes, can be read."""
    roots = "cat @CANARY_FILE@ /proc/1/root@CANARY_FILE@ /proc/self/root@CANARY_FILE@ 2>&1"
    await shell(box, host, f"{roots}; grep -q '[$]' /etc/shadow 2>/dev/null && echo PWNED; true")


@case()
async def f02_system_folders(box: Box, host: Host) -> None:
    """The system's folders can be written."""
    folders = "/ /usr /usr/bin /etc /bin /var /home /opt /dev"
    await shell(box, host, f"for d in {folders}; do touch $d/g4agent-probe 2>/dev/null && echo PWNED $d; done; true")


@case()
async def f03_devices(box: Box, host: Host) -> None:
    """A device of the host can be made or opened."""
    await python(
        box,
        host,
        """
for mode, name in ((0o60666, "b"), (0o20666, "c")):
    attempt("mknod", lambda: (os.mknod("/tmp/" + name, mode, os.makedev(1, 1)), os.open("/tmp/" + name, os.O_RDONLY)))
for name in ("vda", "sda", "mem", "kmsg", "kvm", "fuse", "vsock", "net/tun"):
    attempt(name, lambda: os.open("/dev/" + name, os.O_RDONLY))
""",
    )


@case()
async def f04_setuid(box: Box, host: Host) -> None:
    """A set-user-id program gives rights."""
    script = "cp /bin/sh /tmp/s; chmod 6755 /tmp/s; /tmp/s -p -c id; grep NoNewPrivs /proc/self/status"
    result = await shell(box, host, script)
    assert b"NoNewPrivs:\t1" in result.stdout and b"euid=0" not in result.stdout


@case()
async def f05_kernel_switches(box: Box, host: Host) -> None:
    """The kernel's switches in /proc can be written."""
    names = "sys/kernel/core_pattern sysrq-trigger sys/kernel/modprobe sys/fs/binfmt_misc/register sys/kernel/hostname"
    await shell(box, host, f"for n in {names}; do (exec 3>/proc/$n) 2>/dev/null && echo PWNED $n; done; true")


@case()
async def f06_control_groups(box: Box, host: Host) -> None:
    """The box's own limits can be raised, or a program of the host be started, through the control groups' files."""
    writable = "find /sys/fs/cgroup -type f -writable 2>/dev/null | head -3"
    result = await shell(box, host, f"{writable}; find / -xdev -name release_agent -writable 2>/dev/null | head -3")
    assert result.stdout == b""


@case(starred=True)
async def f07_namespaces_and_mounts(box: Box, host: Host) -> None:
    """New namespaces or mounts are possible, the start of most ways out."""
    # arguments that no kernel accepts: where the call is open it says so, and nothing happens
    calls = {
        "mount": (number(165, 40), b"none", b"/no-such", b"tmpfs", 0, 0),
        "umount2": (number(166, 39), b"/no-such", 0),
        "pivot_root": (number(155, 41), b"/no-such", b"/no-such"),
        "chroot": (number(161, 51), b"/no-such"),
        "setns": (number(308, 268), -1, 0),
        "open_tree": (428, -100, b"/no-such", 0),
        "fsopen": (430, b"no-such", 0),
    }
    await python(
        box,
        host,
        f"""
for flag in (0x10000000, 0x00020000, 0x40000000):
    for how in ("unshare", "clone"):
        pid = os.fork()
        if pid == 0:
            if how == "unshare":
                os._exit(0 if syscall({number(272, 97)}, flag) else 1)
            os._exit(1 if _libc.syscall({number(56, 220)}, flag | signal.SIGCHLD, 0, 0, 0, 0) >= 0 else 0)
        if os.waitpid(pid, 0)[1]:
            print("PWNED", how, hex(flag))
for name, (number, *arguments) in {calls}.items():
    if syscall(number, *arguments) not in (errno.EPERM, errno.ENOSYS):
        print("PWNED", name)
""",
    )


@case()
async def f08_own_program(box: Box, host: Host) -> None:
    """The program file of a running process can be overwritten (CVE-2019-5736)."""
    await shell(box, host, "for p in 1 self $PPID; do (exec 3>>/proc/$p/exe) 2>/dev/null && echo PWNED $p; done; true")


@case()
async def f09_inherited_descriptors(box: Box, host: Host) -> None:
    """A descriptor of the host, or of the sandbox's own channels, is left open (CVE-2024-21626)."""
    await python(
        box,
        host,
        """
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2 and os.path.exists("/proc/self/fd/" + name):
        target = os.readlink("/proc/self/fd/" + name)
        if not target.startswith("/proc"):
            print("PWNED", name, target)
for pid in (1, os.getppid()):
    attempt("descriptors of another process", lambda: os.listdir(f"/proc/{pid}/fd"))
""",
    )


@case(starred=True)
async def f10_path_sockets(box: Box, host: Host) -> None:
    """A unix socket of the host that nobody named can be reached."""
    await python(
        box,
        host,
        """
for path in ("@PATH_SOCKET@", "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"):
    attempt(path, lambda: socket.socket(socket.AF_UNIX).connect(path))
""",
    )


@case()
async def f12_quota(box: Box, host: Host) -> None:
    """A private folder has no size, so that one call fills the host's memory or disk."""
    for folder in (str(box.workspace), "/tmp", "/dev/shm"):
        script = (
            f"i=0; while [ $i -lt 20 ]; do dd if=/dev/zero of={folder}/f$i bs=1M count=16 2>&1 || break; i=$((i+1)); "
        )
        result = await shell(box, host, script + f"done; du -cm {folder}/f* | tail -n 1 | cut -f1; rm -f {folder}/f*")
        assert b"No space left" in result.stdout and int(result.stdout.split()[-1]) <= 80


@case(needs="memory")
async def f13_many_files(box: Box, host: Host) -> None:
    """Empty files without number take the host's memory, or the box's for good."""
    script = """
made = 0
try:
    for made in range(300_000):
        open(f"/tmp/{made}", "w").close()
except OSError:
    pass
print(made)
"""
    result = await python(box, host, script, timeout=20)
    assert result.out_of_memory or int(result.stdout) < 299_999, "neither their number nor the box's memory ended it"
    assert (await shell(box, host, "find /tmp -type f -delete; echo again", timeout=20)).stdout == b"again\n"


@case()
async def f14_large_file(box: Box, host: Host) -> None:
    """A file can grow beyond its limit."""
    await python(box, host, 'attempt("1 TiB", lambda: os.truncate(os.open("big", os.O_CREAT | os.O_RDWR), 1 << 40))')


@case()
async def f15_links_are_not_followed(box: Box, host: Host) -> None:
    """Reading or writing a file for the host follows a link out of the workspace."""
    await shell(box, host, "ln -s @CANARY_FILE@ out; ln -s / root; ln -s /etc/passwd passwd; mkdir -p d; echo x > d/f")
    for path in ("out", f"root{host.file}", "passwd", "../etc/passwd", "/etc/passwd", "d/../../etc/passwd"):
        with pytest.raises(WorkspacePathError):
            await box.read_file(path)
    with pytest.raises(WorkspacePathError):
        await box.write_file("root/tmp/x", b"x")
    await box.write_file("passwd", b"replaced")
    assert await box.read_file("passwd") == b"replaced"
    assert await box.list_files() == ["d/f", "passwd"]


@case()
async def f16_hostile_archives(box: Box, host: Host) -> None:
    """A snapshot with a hostile member is unpacked, or harms what is there."""
    await box.write_file("kept.txt", b"kept")
    for name, kind in (("../x", tarfile.REGTYPE), ("/tmp/x", tarfile.REGTYPE), ("dev", tarfile.CHRTYPE)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.type = kind
            archive.addfile(member)
        with pytest.raises(WorkspacePathError):
            await box.restore(buffer.getvalue())
    with pytest.raises(WorkspacePathError):
        await box.restore(b"no archive" * 200)
    assert await box.read_file("kept.txt") == b"kept"


@case()
async def f17_irregular_files(box: Box, host: Host) -> None:
    """Collecting a FIFO or an endless file hangs the host."""
    await shell(box, host, "mkfifo pipe; truncate -s 20M sparse; mkdir folder")
    with anyio.fail_after(10):
        for path in ("pipe", "folder", "missing"):
            with pytest.raises(WorkspacePathError):
                await box.read_file(path)
        with pytest.raises(WorkspacePathError):
            await box.read_file("sparse", max_bytes=MiB)
        assert len(await box.snapshot()) > 20 * MiB


@case()
async def f18_links_swapped_in(box: Box, host: Host) -> None:
    """A link that is swapped in while the host reads a file leads the host out of the workspace."""
    swap = """
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for make in (lambda: os.symlink("@CANARY_FILE@", "new"), lambda: open("new", "w").write("own")):
        make()
        os.replace("new", "race")
"""
    seen: set[bytes] = set()

    async def read() -> None:
        while b"stop" not in seen:
            with contextlib.suppress(WorkspacePathError):
                seen.add(await box.read_file("race"))
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await python(box, host, swap)
        seen.add(b"stop")
    assert seen <= {b"stop", b"own", b""} and host.canary.encode() not in await box.snapshot()


@case()
async def f19_planted_files(box: Box, host: Host) -> None:
    """A file that programs pick up by its name runs on the host, which lists, archives and puts back the workspace."""
    files = dict.fromkeys(
        ("sitecustomize.py", "usercustomize.py", "conftest.py", "json.py", "g4agent.py"),
        b"open('planted', 'a').write('x')\n",
    )
    files |= {".git/hooks/post-checkout": b"#!/bin/sh\ntouch planted\n", "x.pth": b"import sitecustomize\n"}
    files |= {".git/config": b"[core]\n\tfsmonitor = touch planted\n", ".bashrc": b"touch planted\n"}
    for name, content in files.items():
        await box.write_file(name, content, executable=True)
    await box.restore(await box.snapshot())
    assert "planted" not in await box.list_files() and not Path("planted").exists()


@case()
async def o10_archive_bomb(box: Box, host: Host) -> None:
    """A small file that unpacks to more than there is room for fills more than the box's room, or ends it."""
    script = """
import gzip, shutil
with gzip.open("bomb.gz", "wb", compresslevel=1) as file:
    for _ in range(60):
        file.write(bytes(1 << 20))
for index in range(3):
    attempt("unpack", lambda: shutil.copyfileobj(gzip.open("bomb.gz"), open(f"out{index}", "wb")))
print(os.path.getsize("bomb.gz") < 1 << 20)
"""
    assert (await python(box, host, script)).stdout == b"True\n"
    assert (await shell(box, host, "rm out*; echo again > f; cat f")).stdout == b"again\n"
