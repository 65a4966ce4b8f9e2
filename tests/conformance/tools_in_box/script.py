"""A script with a tool in it."""

from g4agent.tools import tool


@tool
def double(number: int) -> int:
    """Doubles.

    Args:
        number: What to double.
    """
    return 2 * number


if __name__ == "__main__":
    raise SystemExit("the script ran")
