"""Tools that use the network."""

from __future__ import annotations

from g4agent.tools import tool


@tool(effect="pure")
def fetch(url: str) -> str:
    """Fetches a page.

    Args:
        url: Its address.
    """
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile="authority.pem")
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return str(answer.read().decode())
