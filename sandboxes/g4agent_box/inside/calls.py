"""One call: what a helper process does to run a command or a tool in a child, take its output and leave nothing.

The helper must be a subreaper: whatever detaches itself (double fork, setsid) then becomes the helper's own child.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque

from g4agent_box.inside import kernel
from g4agent_box.inside.protocol import CHUNK, Head, pack_head, send_frame

TYPE_CHECKING = False  # a box starts in two thirds of the time without `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

HEAD_SHARE = 0.4
"""Share of the kept output that is its beginning; the rest is its end."""
RUNAWAY_FACTOR = 8
"""A stream that reaches this many times its cap ends the call."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a command that could not start, as shells give them."""


LONGEST_POLL = 86_400.0
"""Seconds to wait at a time: `poll` counts milliseconds in 32 bits, which are over after 24 days."""


class CallLimits:
    """What one call may use; the box as a whole is limited by its control group."""

    def __init__(
        self,
        *,
        output_bytes: int,
        idle_seconds: float | None,
        file_bytes: int,
        open_files: int,
        processes: int | None,
        data_bytes: int | None,
        user: int | None = None,
    ) -> None:
        self.output_bytes = output_bytes
        self.idle_seconds = idle_seconds
        """How long it may print nothing."""
        self.file_bytes = file_bytes
        self.open_files = open_files
        self.processes = processes
        """RLIMIT_NPROC of the whole box, its own processes included; None where the kernel counts per user of the
        host."""
        self.data_bytes = data_bytes
        """RLIMIT_DATA per process, where there is no control group for memory."""
        self.user = user
        """Who tools run as, where that is another user than the supervisor's."""

    def as_dict(self) -> Head:
        """The arguments that make an equal one."""
        return dict(vars(self))

    def apply(self) -> None:
        """Takes the user and the limits, for good, in the calling process and all that it starts."""
        kernel.become_user(self.user)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_FSIZE, self.file_bytes)
        _limit(resource.RLIMIT_NOFILE, self.open_files)
        if self.processes is not None:
            _limit(resource.RLIMIT_NPROC, self.processes)
        if self.data_bytes is not None:
            _limit(resource.RLIMIT_DATA, self.data_bytes)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


class Order:
    """What a call's child is told to do."""

    def __init__(self, head: Head, body: bytes = b"", stdin: bytes = b"") -> None:
        self.head = head
        self.body = body
        self.stdin = stdin


class Capture:
    """The beginning and the end of a stream."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._head = bytearray()
        self._head_limit = int(limit * HEAD_SHARE)
        self._tail: deque[bytes] = deque()
        self._tail_length = 0

    def add(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        self.total += len(data)
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        if rest := data[room:]:
            self._tail.append(rest)
            self._tail_length += len(rest)
        while self._tail and self._tail_length - len(self._tail[0]) >= self.limit - self._head_limit:
            self._tail_length -= len(self._tail.popleft())

    @property
    def runaway(self) -> bool:
        """Whether the stream is far beyond what is kept."""
        return self.total >= self.limit * RUNAWAY_FACTOR

    def kept(self) -> bytes:
        """At most `limit` bytes: all of the stream, or its head and its tail."""
        return bytes(self._head) + b"".join(self._tail)[-(self.limit - self._head_limit) :]


class Answer:
    """What a call came to: the head of its frame, and what is kept of output, errors and result."""

    def __init__(self, head: Head, parts: list[bytes]) -> None:
        self.head = head
        self.parts = parts

    def send(self, connection: socket.socket) -> None:
        """Sends it. Raises OSError where the host has given up the call."""
        send_frame(connection, self.head, *self.parts)


def rehearse() -> None:
    """Does, for nothing and before anybody waits for it, some of what a call will do: the first touch of a page that
    two processes share costs microseconds, and a call touches hundreds."""
    read_end, write_end = os.pipe()
    ended = os.pidfd_open(os.getpid())
    _give_order(write_end, {"env": {}, "deadline": 1.5, "limits": [None, True, 1]}, b"")
    head, body = _take_order(read_end)
    capture = Capture(1)
    capture.add(body)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.poll(0)
    os.close(ended)
    resource.getrusage(resource.RUSAGE_CHILDREN)
    pack_head({"lengths": [capture.total], "wall_seconds": time.monotonic(), **head}, len(capture.kept()))
    _limit(resource.RLIMIT_CORE, 0)
    kernel.set_dumpable(False)


class Call:
    """The helper's work for one call.

    Making it forks the child, which then waits for its order: a helper has the next call's child ready before there is
    a call. What runs in the child, `target`, takes the order's head and body and the result pipe, and must not return.
    `keep_out` closes in the child what only the helper may hold; `prepare` is done while it waits.
    """

    def __init__(
        self,
        target: Callable[[Head, bytes, int], object],
        keep_out: Callable[[], None],
        prepare: Callable[[], None] = rehearse,
    ) -> None:
        order_read, self._order = os.pipe()
        stdin_read, self._stdin = os.pipe()
        pipes = [os.pipe() for _ in range(3)]  # output, errors, result
        self._read_ends = [read_end for read_end, _ in pipes]
        self._captures: dict[int, Capture] = {}
        self._timed_out = self._idle = False
        self._deadline = 0.0
        self._patience: float | None = None
        self._last_output = 0.0
        self._peak = 0
        self.began = True
        """Whether the child that ended had taken its order."""
        self._child = os.fork()
        if self._child == 0:
            for fd in (*self._read_ends, self._stdin, self._order):
                os.close(fd)
            keep_out()
            prepare()
            head, body = _take_order(order_read)
            _become_child(CallLimits(**head["limits"]), stdin_read, pipes[0][1], pipes[1][1])
            target(head, body, pipes[2][1])
        os.close(order_read)
        os.close(stdin_read)
        for read_end, write_end in pipes:
            os.close(write_end)
            os.set_blocking(read_end, False)

    def drop(self) -> None:
        """Lets the child go, which has no order, and waits for its end."""
        for fd in (*self._read_ends, self._stdin, self._order):
            os.close(fd)
        os.waitpid(self._child, 0)

    def run(self, limits: CallLimits, deadline: float, order: Order) -> Answer:
        """Runs the call to its end; on return, none of its processes is left. The deadline is one of this machine's
        monotonic clock."""
        started = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._deadline = deadline
        self._patience, self._last_output = limits.idle_seconds, started
        self._captures = {fd: Capture(limits.output_bytes) for fd in self._read_ends}
        _give_order(self._order, order.head | {"limits": limits.as_dict()}, order.body)
        status = self._follow(order.stdin)
        wall = time.monotonic() - started
        peak = max(self._peak, kernel.kill_and_reap_descendants())
        for fd in self._read_ends:
            self._drain(fd)
            os.close(fd)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = [self._captures[fd].kept() for fd in self._read_ends]
        head: Head = {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            "timed_out": self._timed_out,
            "idle": self._idle,
            "wall_seconds": wall,
            "cpu_seconds": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
            "peak_memory_bytes": peak * 1024,
            "lengths": [len(part) for part in kept],
            "totals": [self._captures[fd].total for fd in self._read_ends],
        }
        return Answer(head, kept)

    def _follow(self, stdin: bytes) -> int:
        """Feeds and drains the pipes until the child ends by itself or is ended; gives its wait status."""
        ended = os.pidfd_open(self._child)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        for fd in self._captures:
            poll.register(fd, select.POLLIN)
        if stdin:
            os.set_blocking(self._stdin, False)
            poll.register(self._stdin, select.POLLOUT)
        else:
            os.close(self._stdin)
        pending = memoryview(stdin)
        try:
            while True:
                now = time.monotonic()
                remaining = self._deadline - now
                self._timed_out = remaining <= 0
                if self._patience is not None and not self._timed_out:
                    remaining = min(remaining, self._last_output + self._patience - now)
                    self._idle = remaining <= 0
                if self._timed_out or self._idle or any(capture.runaway for capture in self._captures.values()):
                    kernel.kill_descendants({self._child}, including_roots=True)
                    return self._wait()
                for fd, _ in poll.poll(min(remaining, LONGEST_POLL) * 1000 + 1):
                    if fd == ended:
                        return self._wait()
                    if fd in self._captures:
                        if not self._drain(fd, limit=CHUNK):
                            poll.unregister(fd)
                        continue
                    try:
                        pending = pending[os.write(fd, pending) :]
                    except BrokenPipeError:
                        pending = pending[:0]
                    if not pending:
                        poll.unregister(fd)
                        os.close(fd)
        finally:
            if pending:
                os.close(self._stdin)
            os.close(ended)

    def _wait(self) -> int:
        # with its order, a child has left this process's session for one of its own (`_become_child`)
        self.began = os.getsid(self._child) == self._child
        _, status, used = os.wait4(self._child, 0)
        self._peak = used.ru_maxrss
        return status

    def _drain(self, fd: int, limit: int | None = None) -> bool:
        """Takes what is in a pipe; False at its end."""
        capture = self._captures[fd]
        while limit is None or limit > 0:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            capture.add(data)
            self._last_output = time.monotonic()
            limit = None if limit is None else limit - len(data)
        return True


def run_call(call: Call, fork_another: Callable[[], Call], limits: CallLimits, deadline: float, order: Order) -> Answer:
    """Runs a call to its end; with another child, where a tool of an earlier call has killed the one that waited, at
    whatever moment before it took its order."""
    answer = call.run(limits, deadline, order)
    if call.began or answer.head["timed_out"] or answer.head["idle"]:
        return answer
    return fork_another().run(limits, deadline, order)


def _give_order(fd: int, head: Head, body: bytes) -> None:
    """Tells the child what to do: a line of JSON, then the body. A child that is dead already is found by `_follow`."""
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as pipe:
        pipe.write(json.dumps(head).encode() + b"\n")
        pipe.write(body)


def _take_order(fd: int) -> tuple[Head, bytes]:
    """In the child: waits for the order. Where there is none, the helper has ended, and so does the child."""
    with open(fd, "rb") as pipe:
        line = pipe.readline()
        if not line.endswith(b"\n"):
            os._exit(0)
        return json.loads(line), pipe.read()


def _become_child(limits: CallLimits, stdin: int, stdout: int, stderr: int) -> None:
    """Makes the forked process the tool's own: new session, pipes as standard streams, limits, first to be killed."""
    os.setsid()
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number)
        os.close(fd)
    os.umask(0o022)
    limits.apply()
    kernel.set_dumpable(True)
    with contextlib.suppress(OSError):
        prefer_as_victim(1000)


def prefer_as_victim(score: int) -> None:
    """Tells the kernel to end this process rather than the supervisor when the box is out of memory."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)


def run_command(argv: list[str], env: dict[str, str], cwd: str) -> NoReturn:
    """Turns the child into a command; a failure to start reads like a shell's."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # SIGXFSZ stays ignored: a file that grows too large is an error (EFBIG) to the program, not its death
    try:
        os.chdir(cwd)
        os.execvpe(argv[0], argv, env)
    except (FileNotFoundError, NotADirectoryError) as error:
        fail_to_start(argv[0], error, NOT_FOUND)
    except (OSError, ValueError) as error:
        fail_to_start(argv[0], error, NOT_EXECUTABLE)


def fail_to_start(name: str, error: Exception, code: int) -> NoReturn:
    """Ends the child as if the command had ended with `code`."""
    os.write(2, f"{name}: {error}\n".encode(errors="surrogateescape"))
    os._exit(code)


def close_all(*sockets: socket.socket) -> None:
    """Closes sockets, in a fork that must not hold them."""
    for each in sockets:
        each.close()


def fork_and_run(work: Callable[[], None]) -> int:
    """Forks a process of the box's own that does `work` and exits, without ever returning into the caller's loop."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        work()
        code = 0
    except ConnectionError:
        pass  # the host has given up this call; what is left of it, the supervisor ends
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
