"""`python -m g4agent_docker build [--from-host] [--with PACKAGE]... [--tag NAME:VERSION]`: makes the boxes' image."""

from __future__ import annotations

import argparse
import sys

from g4agent.errors import G4AgentError
from g4agent_docker.engine import connect
from g4agent_docker.image import DEFAULT_IMAGE, build, build_from_host


def main() -> int:
    """Exit code 1 where it fails."""
    parser = argparse.ArgumentParser(prog="python -m g4agent_docker", description="Makes the image of the boxes.")
    parser.add_argument("command", choices=["build"])
    parser.add_argument("--from-host", action="store_true", help="from this machine's files, without a registry")
    parser.add_argument("--with", dest="extra", action="append", default=[], metavar="PACKAGE", help="for the tools")
    parser.add_argument("--tag", default=DEFAULT_IMAGE)
    parser.add_argument("--base", help="base image of the Dockerfile, instead of Docker's python")
    options = parser.parse_args()
    try:
        client = connect(None)
        if not options.from_host:
            build(client, options.tag, extra=options.extra, base=options.base)
        elif not build_from_host(client, options.tag, extra=options.extra):
            print(f"{options.tag} is up to date")
            return 0
    except G4AgentError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.tag} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
