"""Conformance suite for sandboxes: what every backend must hold, whatever it is made of.

A case runs in an open box of `LIMITS` and raises AssertionError where the sandbox fails. Starred cases are attacks that
succeed without a sandbox: a backend's tests run them against a bare subprocess too, where each of them must fail, or
the case proves nothing. A probe prints PWNED where an attack works.
"""

from __future__ import annotations

import io
import platform
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import pytest
from sandbox_host import Host

from g4agent.errors import WorkspacePathError
from g4agent.ports.sandbox import Box, ExecResult, LimitName, Limits, MiB

LIMITS = Limits(
    memory_bytes=192 * MiB,
    processes=24,
    cpus=0.5,
    wall_seconds=20,
    output_bytes=64 * 1024,
    file_bytes=24 * MiB,
    open_files=64,
    workspace_bytes=32 * MiB,
)
GONE_AFTER = 0.5
"""Seconds after which a process that survived its call would have left its mark."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `starred` means that the control must fail it, `needs` is a limit without which it says nothing."""

    run: Callable[[Box, Host], Awaitable[None]]
    starred: bool
    needs: LimitName | None


CASES: dict[str, Case] = {}


def case(
    *, starred: bool = False, needs: LimitName | None = None
) -> Callable[[Callable[[Box, Host], Awaitable[None]]], Callable[[Box, Host], Awaitable[None]]]:
    """Registers a case under its function's name."""

    def register(run: Callable[[Box, Host], Awaitable[None]]) -> Callable[[Box, Host], Awaitable[None]]:
        CASES[run.__name__] = Case(run, starred, needs)
        return run

    return register


async def shell(box: Box, host: Host, script: str, timeout: float = 15) -> ExecResult:
    """Runs a shell script and checks that neither the canary nor a success of an attack comes out."""
    return _checked(host, await box.exec(["sh", "-c", host.fill_in(script)], timeout=timeout))


async def python(box: Box, host: Host, script: str, timeout: float = 15) -> ExecResult:
    """As `shell`, for a Python script, which has `syscall(number, *arguments)` → errno, 0 for success."""
    return _checked(host, await box.exec(["python3", "-c", _PRELUDE + host.fill_in(script)], timeout=timeout))


def _checked(host: Host, result: ExecResult) -> ExecResult:
    text = (result.stdout + result.stderr).decode(errors="replace")
    assert "PWNED" not in text, text
    assert host.canary not in text, text
    return result


_PRELUDE = """
import ctypes, errno, os, signal, socket, subprocess, sys, time
_libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return ctypes.get_errno() if result == -1 else 0
def attempt(what, action):
    try:
        action()
    except (OSError, ValueError):
        return
    print("PWNED", what)
"""
_X86 = platform.machine() == "x86_64"


def _number(x86: int, arm: int) -> int:
    return x86 if _X86 else arm


# --- file system -----------------------------------------------------------------------------------------------------


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


@case(starred=True)
async def f07_namespaces_and_mounts(box: Box, host: Host) -> None:
    """New namespaces or mounts are possible, the start of most ways out."""
    # arguments that no kernel accepts: where the call is open it says so, and nothing happens
    calls = {
        "mount": (_number(165, 40), b"none", b"/no-such", b"tmpfs", 0, 0),
        "umount2": (_number(166, 39), b"/no-such", 0),
        "pivot_root": (_number(155, 41), b"/no-such", b"/no-such"),
        "chroot": (_number(161, 51), b"/no-such"),
        "setns": (_number(308, 268), -1, 0),
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
                os._exit(0 if syscall({_number(272, 97)}, flag) else 1)
            os._exit(1 if _libc.syscall({_number(56, 220)}, flag | signal.SIGCHLD, 0, 0, 0, 0) >= 0 else 0)
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
        result = await shell(box, host, script + f"done; du -sm {folder} | cut -f1; rm -f {folder}/f*")
        assert b"No space left" in result.stdout and int(result.stdout.split()[-1]) <= 80


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


# --- processes and limits --------------------------------------------------------------------------------------------


@case(needs="processes")
async def p01_fork_bomb(box: Box, host: Host) -> None:
    """A fork bomb outlives its call or takes the box with it."""
    started = time.monotonic()
    result = await shell(box, host, "b() { b | b & }; b & exec sleep 60", timeout=2)
    assert result.timed_out and time.monotonic() - started < 12
    assert (await shell(box, host, "echo alive")).stdout == b"alive\n"


@case(starred=True)
async def p02_daemons(box: Box, host: Host) -> None:
    """A process that detached itself lives on after its call."""
    detached = f"sleep {GONE_AFTER}; echo survived > mark"
    await python(
        box,
        host,
        f"""
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        os.execvp("sh", ["sh", "-c", {detached!r}])
    os._exit(0)
""",
    )
    await anyio.sleep(2 * GONE_AFTER)
    assert (await shell(box, host, "cat mark 2>/dev/null; true")).stdout == b""


@case(starred=True)
async def p03_held_output(box: Box, host: Host) -> None:
    """A grandchild that holds the output delays the result."""
    started = time.monotonic()
    result = await shell(box, host, "sleep 6 & echo started; exit 0")
    assert time.monotonic() - started < 4 and result.stdout == b"started\n" and result.exit_code == 0


@case()
async def p04_deaf_and_stopped(box: Box, host: Host) -> None:
    """A process that ignores signals or stops itself outlives its deadline."""
    for script in ("trap '' TERM HUP INT QUIT; while :; do sleep 1; done", "kill -STOP $$"):
        started = time.monotonic()
        result = await shell(box, host, script, timeout=0.5)
        assert result.timed_out and time.monotonic() - started < 4


@case(needs="memory")
async def p06_memory(box: Box, host: Host) -> None:
    """A call that takes all memory is not ended, not reported as such, or takes the box with it."""
    result = await python(box, host, "a = []\nwhile True: a.append(bytearray(1 << 20))", timeout=30)
    assert result.out_of_memory and not result.timed_out
    result = await shell(box, host, "echo 800 > /proc/self/oom_score_adj; python3 -c 'x = bytearray(1 << 30)'; exit 3")
    assert result.out_of_memory
    assert not (await shell(box, host, "echo alive")).out_of_memory


@case()
async def p08_kill_everything(box: Box, host: Host) -> None:
    """A process of the host can be killed (`bait` looks), or killing all leaves a box that hangs."""
    with anyio.fail_after(15):
        await shell(
            box, host, "kill -9 @VICTIM@; kill -9 1; kill -TERM 1; kill -INT 1; kill -STOP 1; kill -9 -1; sleep 5"
        )
        assert (await shell(box, host, "echo alive")).stdout == b"alive\n"


@case(starred=True)
async def p09_host_processes(box: Box, host: Host) -> None:
    """Processes of the host are visible."""
    await shell(
        box,
        host,
        "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f | grep -q test-victi[m] && echo PWNED; done; true",
    )


@case(starred=True)
async def p10_other_processes(box: Box, host: Host) -> None:
    """Another process's environment can be read, or it can be traced."""
    ptrace = _number(101, 117)
    await python(
        box,
        host,
        f"""
for pid in (1, os.getppid(), @VICTIM@):
    attempt(f"environment of {{pid}}", lambda: open(f"/proc/{{pid}}/environ", "rb").read())
    attempt(f"memory of {{pid}}", lambda: open(f"/proc/{{pid}}/mem", "r+b"))
if syscall({ptrace}, 0, 0, 0, 0) == 0:
    print("PWNED ptrace")
""",
    )


@case(starred=True)
async def p11_forbidden_calls(box: Box, host: Host) -> None:
    """A system call with a large attack surface is open. 0 arguments: a closed one never says EFAULT or EINVAL."""
    numbers = {
        "io_uring_setup": (425, 425),
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "kexec_load": (246, 104),
        "init_module": (175, 105),
        "swapon": (167, 224),
        "clock_settime": (227, 112),
        "personality": (135, 92),
        "open_by_handle_at": (304, 265),
        "process_vm_writev": (311, 271),
        "pidfd_getfd": (438, 438),
    }
    await python(
        box,
        host,
        f"""
for name, number in { ({name: _number(*pair) for name, pair in numbers.items()}) }.items():
    if syscall(number, 0xFFFFFFFF, 0, 0, 0, 0) not in (errno.EPERM, errno.ENOSYS):
        print("PWNED", name)
""",
    )


@case()
async def p12_terminal(box: Box, host: Host) -> None:
    """Input can be pushed into a terminal (CVE-2017-5226), or asking for a password hangs."""
    await python(
        box,
        host,
        """
import fcntl
for fd in (0, 1, 2):
    attempt("TIOCSTI", lambda: fcntl.ioctl(fd, 0x5412, b"x"))
attempt("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
assert sys.stdin.read() == ""
""",
        timeout=5,
    )


@case()
async def p13_more_rights(box: Box, host: Host) -> None:
    """A limit can be raised, or a priority taken."""
    await python(
        box,
        host,
        """
import resource
attempt("nice", lambda: os.nice(-20))
attempt("real-time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
    attempt("limit", lambda: resource.setrlimit(kind, (1 << 20, 1 << 40)))
""",
    )


@case()
async def p14_no_core_file(box: Box, host: Host) -> None:
    """A crash leaves its memory in a file, or is not told from an exit."""
    result = await shell(box, host, "ulimit -c unlimited 2>/dev/null; kill -SEGV $$")
    assert result.signal == 11 and result.exit_code is None
    assert (await shell(box, host, "ls -A | grep -i core; true")).stdout == b""


@case()
async def p17_descriptors(box: Box, host: Host) -> None:
    """Descriptors are without limit."""
    script = 'a = []\nwhile len(a) < 100000: a.append(os.open("/dev/null", os.O_RDONLY))\nprint("PWNED")'
    assert b"Too many open files" in (await python(box, host, script)).stderr


@case(needs="cpu")
async def p20_processor_time(box: Box, host: Host) -> None:
    """Two busy processes get more than the box's share of the processors."""
    script = "timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done'; wait"
    result = await shell(box, host, script)
    assert 0.2 < result.cpu_seconds <= 1.4


# --- network and information -----------------------------------------------------------------------------------------


@case(starred=True)
async def n01_network(box: Box, host: Host) -> None:
    """A listener of the host is reached, by TCP, UDP or an abstract unix socket."""
    host.visitors.clear()
    await python(
        box,
        host,
        """
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", @TCP_PORT@), 2))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0@ABSTRACT_SOCKET@"))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP_PORT@))
attempt("names", lambda: socket.getaddrinfo("example.org", 80))
""",
    )
    await anyio.sleep(0.1)
    assert host.visitors == []


@case(starred=True)
async def n04_socket_families(box: Box, host: Host) -> None:
    """A family of sockets that network namespaces do not close, or that is rarely audited, is open."""
    await python(
        box,
        host,
        "for family in (40, 17, 38, 44, 21, 30, 31, 29):\n"
        "    attempt(family, lambda: socket.socket(family, socket.SOCK_DGRAM))\n"
        'attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))\nattempt("alg", lambda: socket.socket(38, 5))',
    )


@case(starred=True)
async def n05_interfaces(box: Box, host: Host) -> None:
    """There is an interface besides lo, or a route."""
    result = await shell(box, host, "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route")
    assert result.stdout.split() == [b"lo"]


@case()
async def n06_other_calling_conventions(box: Box, host: Host) -> None:
    """The filter is passed by with x32 numbers; `int 0x80` is tested with the filter itself."""
    assert b"38" in (await python(box, host, "print(syscall(0x40000000 + 41, 40, 1, 0))")).stdout or not _X86


@case(starred=True)
async def i01_environment(box: Box, host: Host) -> None:
    """A variable of the host's environment is seen."""
    result = await shell(box, host, "env; cat /proc/[0-9]*/environ 2>/dev/null; true")
    assert host.variable.encode() not in result.stdout


@case()
async def i03_kernel_log(box: Box, host: Host) -> None:
    """The kernel's log, addresses or memory are seen."""
    await shell(
        box,
        host,
        "dmesg 2>/dev/null | grep -q . && echo PWNED; head -c1 /dev/kmsg /proc/kcore 2>/dev/null && echo PWNED; true",
    )
    result = await shell(box, host, "grep -vc '^0000000000000000' /proc/kallsyms")
    assert result.stdout.strip() in (b"0", b"")


# --- the result's contract -------------------------------------------------------------------------------------------


@case()
async def o01_runaway_output(box: Box, host: Host) -> None:
    """Endless output is kept in memory, runs on, or is cut without a count."""
    started = time.monotonic()
    result = await shell(box, host, "yes AAAAAAAA")
    assert time.monotonic() - started < 10 and result.signal == 9 and not result.timed_out
    assert len(result.stdout) == LIMITS.output_bytes and result.omitted_stdout >= 6 * LIMITS.output_bytes


@case()
async def o02_bytes(box: Box, host: Host) -> None:
    """Output that is no text is changed."""
    result = await python(box, host, 'os.write(1, b"\\0\\xff\\x1b[31m"); os.write(2, b"\\xfe\\0")')
    assert (result.stdout, result.stderr) == (b"\0\xff\x1b[31m", b"\xfe\0")


@case()
async def o05_exit_codes(box: Box, host: Host) -> None:
    """A failure to start cannot be told from the command's own."""
    for code in (0, 1, 255):
        assert (await shell(box, host, f"exit {code}")).exit_code == code
    assert (await box.exec(["no-such-program"])).exit_code == 127
    await box.write_file("plain.txt", b"x")
    assert (await box.exec(["./plain.txt"])).exit_code == 126
    await box.write_file("script.sh", b"#!/bin/sh\nexit 7\n", executable=True)
    assert (await box.exec(["./script.sh"])).exit_code == 7


@case()
async def o06_partial_output(box: Box, host: Host) -> None:
    """What was printed before a timeout is lost."""
    result = await shell(box, host, "echo partial; echo problem >&2; sleep 30", timeout=0.5)
    assert result.timed_out and (result.stdout, result.stderr) == (b"partial\n", b"problem\n")


@case()
async def o07_arguments(box: Box, host: Host) -> None:
    """Arguments, input, variables or the folder do not arrive as given."""
    words = ["a b", "$(id)", "'\"", "line\nbreak", "ünïcode", ""]
    result = await box.exec(["python3", "-c", "import sys; print(sys.argv[1:])", *words])
    assert result.stdout.decode().strip() == repr(words)
    await box.write_file("deep/er/f", b"")
    result = await box.exec(["sh", "-c", "cat; echo $X; pwd"], stdin=b"in" * 100_000, env={"X": "y"}, cwd="deep/er")
    # the middle of the input is beyond the output's cap
    assert result.stdout.startswith(b"inin") and result.stdout.endswith(f"y\n{box.workspace}/deep/er\n".encode())


@case()
async def o11_head_and_tail(box: Box, host: Host) -> None:
    """The end of long output, where the error stands, is lost."""
    result = await python(box, host, 'print("HEAD"); print("x" * 300000); print("TAIL")')
    assert result.stdout.startswith(b"HEAD\n") and result.stdout.endswith(b"TAIL\n")
    assert len(result.stdout) + result.omitted_stdout == 300_011


@case()
async def o13_parallel_calls(box: Box, host: Host) -> None:
    """Calls at the same time mix their output or end each other's processes."""
    outputs: dict[int, bytes] = {}

    async def one(index: int) -> None:
        script = f"sleep 5 & (setsid sleep 5 &); sleep 0.{index}; echo {index}; echo {index}"
        outputs[index] = (await shell(box, host, script)).stdout

    async with anyio.create_task_group() as group:
        for index in range(4):
            group.start_soon(one, index)
    assert outputs == {index: f"{index}\n{index}\n".encode() for index in range(4)}


@case()
async def w01_workspace(box: Box, host: Host) -> None:
    """Files, modes and links do not come back from a snapshot, or what came later stays."""
    await shell(box, host, "mkdir -p a/empty; echo 1 > a/f; chmod 755 a/f; ln -s f a/link; ln a/f a/hard; ln -s /usr u")
    snapshot = await box.snapshot()
    await shell(box, host, "rm -r a; echo later > later; mkdir z; ln -s / z/l")
    await box.restore(snapshot)
    result = await shell(box, host, "find . | sort; cat a/link a/hard; test -x a/f && echo x; readlink u")
    assert result.stdout.split() == b". ./a ./a/empty ./a/f ./a/hard ./a/link ./u 1 1 x /usr".split()
