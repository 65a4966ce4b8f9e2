"""Says, before anything is installed, what this machine lacks for development and how to get it."""

import os
import platform
import sys


def main() -> int:
    """Exit code 1 where the set-up cannot work; warnings where the sandbox will be able to enforce less."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(
            f"g4agent needs Python 3.11 to 3.13; this is {platform.python_version()}.\n"
            "  Name another one: make PYTHON=python3.12 ...",
            file=sys.stderr,
        )
        return 1
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        print("This Python cannot make virtual environments.\n  apt-get install python3-venv", file=sys.stderr)
        return 1
    if platform.system() != "Linux":
        print("Note: the bubblewrap sandbox needs Linux; sandboxed tools will not run here.", file=sys.stderr)
    elif os.geteuid() != 0 and not os.access("/sys/fs/cgroup", os.W_OK):
        print(
            "Note: not root, and no cgroup is delegated to this user, so memory, process and CPU limits cannot be\n"
            "  enforced. Run under: systemd-run --user --scope -p Delegate=yes make ...",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
