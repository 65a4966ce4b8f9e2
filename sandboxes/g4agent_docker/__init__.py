"""A sandbox on a container engine: Docker, or Podman through its compatible socket."""

from g4agent_docker.sandbox import DockerSandbox

__all__ = ["DockerSandbox"]
