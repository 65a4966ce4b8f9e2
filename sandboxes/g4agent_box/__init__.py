"""What the project's sandboxes share: the supervisor inside a box, and the host's side of talking to it."""
