"""Process and limit cases. Each docstring says what a failing sandbox lets through."""

from __future__ import annotations

import contextlib
import time

import anyio
from sandbox_case import GONE_AFTER, LIMITS, case, number, python, shell
from sandbox_host import Host

from g4agent.errors import G4AgentError
from g4agent.ports.sandbox import Box, ExecResult


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


@case(needs="memory")
async def p07_files_in_memory(box: Box, host: Host) -> None:
    """What is written to folders in memory does not count as the box's."""
    script = """
blocks = []
for folder in ("/tmp", "/dev/shm", "."):
    with open(folder + "/fill", "wb", buffering=0) as file:
        try:
            while file.tell() < 20 << 20:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    blocks.append(bytearray(60 << 20))
print("all of it")
"""
    result = await python(box, host, script)
    assert result.out_of_memory and b"all of it" not in result.stdout
    assert (await shell(box, host, "rm -f /tmp/fill /dev/shm/fill fill; echo again")).stdout == b"again\n"


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
    ptrace = number(101, 117)
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
for name, number in { ({name: number(*pair) for name, pair in numbers.items()}) }.items():
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
async def p15_process_one(box: Box, host: Host) -> None:
    """Killing process 1 of the box ends the box or hangs the call."""
    result = await shell(box, host, "kill -9 1; kill -TERM 1; kill -STOP 1; echo alive", timeout=5)
    assert result.stdout == b"alive\n" or result.signal is not None
    assert (await shell(box, host, "echo again")).stdout == b"again\n"


@case()
async def p16_zombies(box: Box, host: Host) -> None:
    """Dead children that nobody waits for fill the process table."""
    result = await python(
        box,
        host,
        """
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
""",
    )
    assert int(result.stdout) <= LIMITS.processes
    assert (await shell(box, host, "echo again")).stdout == b"again\n"


@case()
async def p17_descriptors(box: Box, host: Host) -> None:
    """Descriptors are without limit."""
    script = 'a = []\nwhile len(a) < 100000: a.append(os.open("/dev/null", os.O_RDONLY))\nprint("PWNED")'
    assert b"Too many open files" in (await python(box, host, script)).stderr


@case(needs="memory")
async def p18_spared_by_the_kernel(box: Box, host: Host) -> None:
    """A process that asks to be spared when memory runs out takes the box's others, or the host, in its place."""
    script = """
try:
    open("/proc/self/oom_score_adj", "w").write("-1000")
except OSError:
    pass
blocks = []
while True:
    blocks.append(bytearray(1 << 20))
"""
    result = await python(box, host, script, timeout=10)
    assert result.out_of_memory or result.timed_out or result.signal is not None
    assert (await shell(box, host, "echo again")).stdout == b"again\n"


@case(needs="processes")
async def p19_no_process_left(box: Box, host: Host) -> None:
    """While one call has all processes, another one's failure looks as if its command had failed; or it lasts."""
    script = "import time\nwhile True:\n    try: os.fork() or time.sleep(60)\n    except OSError: time.sleep(60)"
    answers: list[ExecResult] = []
    async with anyio.create_task_group() as group:
        group.start_soon(python, box, host, script, 2)
        await anyio.sleep(1)
        with contextlib.suppress(G4AgentError):
            answers.append(await box.exec(["sh", "-c", "echo in between"], timeout=10))
    assert all(answer.stdout == b"in between\n" or answer.signal or answer.timed_out for answer in answers), answers
    assert (await shell(box, host, "sh -c 'echo again'")).stdout == b"again\n"


@case(needs="cpu")
async def p20_processor_time(box: Box, host: Host) -> None:
    """Two busy processes get more than the box's share of the processors."""
    script = "timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done'; wait"
    result = await shell(box, host, script)
    assert 0.2 < result.cpu_seconds <= 1.4
