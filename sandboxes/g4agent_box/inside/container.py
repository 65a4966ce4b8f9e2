"""Process 1 of a container: `python -I container.py LEASE_SECONDS [FOLDER USER]`, reached through its standard streams.

It runs as root with no rights but to change its user and to kill (CAP_SETUID, CAP_SETGID, CAP_KILL), so that no
process of a tool, whose user is another one, can signal, trace or slow it. It carries bytes (`Bridge`); the supervisor
is its child. When either ends, so does the container, and the kernel ends every process in it.
"""

import os
import socket
import sys
from pathlib import PurePosixPath

sys.path.insert(0, str(PurePosixPath(__file__).parents[2]))

from g4agent_box.inside import kernel, supervisor
from g4agent_box.inside.bridge import Bridge
from g4agent_box.inside.calls import fork_and_run


def main(lease: float, folder: str = "", user: str = "") -> None:
    """Runs until the host lets go of the container. `folder` is given to `user` first; that takes CAP_CHOWN."""
    kernel.check()
    kernel.set_dumpable(False)
    if folder:
        os.chown(folder, int(user), int(user))
        kernel.give_up_capability(kernel.CAP_CHOWN)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def supervise() -> None:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        supervisor.main(theirs.detach())

    fork_and_run(supervise)
    theirs.close()
    Bridge(ours, 0, 1, lease).run()


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
