"""Network, information and result cases. Each docstring says what a failing sandbox lets through."""

from __future__ import annotations

import socket
import time

import anyio
from sandbox_case import LIMITS, X86, case, python, shell
from sandbox_host import Host

from g4agent.ports.sandbox import Box


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
    result = await python(box, host, "print(syscall(0x40000000 + 41, 40, 1, 0))")
    assert b"38" in result.stdout or result.signal == 31 or not X86, "ENOSYS, or killed by SIGSYS"


@case(starred=True)
async def i01_environment(box: Box, host: Host) -> None:
    """A variable of the host's environment is seen."""
    result = await shell(box, host, "env; cat /proc/[0-9]*/environ 2>/dev/null; true")
    assert host.variable.encode() not in result.stdout


@case()
async def i02_identity(box: Box, host: Host) -> None:
    """The host's name or its identifiers are seen."""
    files = "/etc/machine-id /var/lib/dbus/machine-id /sys/class/dmi/id/product_uuid /etc/hostname"
    result = await shell(box, host, f"cat {files} 2>/dev/null; uname -n; cat /etc/hosts; true")
    assert socket.gethostname().encode() not in result.stdout and b"g4agent" in result.stdout


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
async def o03_one_long_line(box: Box, host: Host) -> None:
    """A line without end is held until its end."""
    result = await python(box, host, 'sys.stdout.write("x" * 40_000_000)')
    assert len(result.stdout) == LIMITS.output_bytes and result.omitted_stdout >= 6 * LIMITS.output_bytes


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


CHANGES = {
    "nothing": "pass",
    "contents": "open('d/a', 'w').write('new'); open('added', 'w').write('x')",
    "same size, same times": "s = os.stat('b'); open('b', 'r+').write('B'); os.utime('b', ns=(0, s.st_mtime_ns))",
    "a shared mapping": "f = open('map', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[0]; m[0:3] = b'new'; m.close()",
    "names": "os.rename('d', 'e'); os.rename('b', 'd'); os.rename('e/a', 'b'); os.remove('added')",
    "modes": "os.chmod('b', 0o755); os.chmod('e/big', 0); os.chmod('e', 0)",
    "kinds": "os.chmod('e', 0o700); os.remove('map'); os.symlink('b', 'map'); os.remove('l'); os.mkdir('l')",
    "links": "os.link('b', 'l/b'); os.link('l/b', 'l/c'); os.remove('b'); os.mkfifo('fifo'); os.symlink('/', 'out')",
    "large": "os.chmod('e/big', 0o600); os.truncate('e/big', 5 << 20); open('e/big', 'r+b').write(b'first')",
    "in its middle": "f = open('e/big', 'r+b'); f.seek(1 << 20); f.write(b'more')",
}
LIST = """
import hashlib
for folder, folders, files in sorted(os.walk(".")):
    for name in sorted(folders + files):
        path = folder + "/" + name
        s = os.lstat(path)
        if os.path.islink(path):
            print(path, "->", os.readlink(path))
        elif os.path.isdir(path):
            print(path)
        elif os.path.isfile(path):
            content = hashlib.md5(open(path, "rb").read()).hexdigest()
            print(path, oct(s.st_mode), s.st_size, round(s.st_mtime, 3), s.st_nlink, content)
"""


@case()
async def w02_snapshots_in_a_row(box: Box, host: Host) -> None:
    """A later snapshot misses a change: a content under the same times, a name, a mode, a link, a removed file."""
    start = "os.mkdir('d'); open('d/a', 'w').write('a'); open('b', 'w').write('b'); open('d/big', 'w').write('big')"
    await python(box, host, f"{start}; open('map', 'wb').write(bytes(9000)); os.symlink('d', 'l')")
    snapshots = [(await box.snapshot(), b"")]
    for what, change in CHANGES.items():
        assert (await python(box, host, f"import mmap\n{change}")).exit_code == 0, what
        snapshot = await box.snapshot()
        assert (snapshot == snapshots[-1][0]) == (what == "nothing"), what
        snapshots.append((snapshot, (await python(box, host, LIST)).stdout))
    for snapshot, listing in reversed(snapshots[1:]):
        await box.restore(snapshot)
        assert (await python(box, host, LIST)).stdout == listing
