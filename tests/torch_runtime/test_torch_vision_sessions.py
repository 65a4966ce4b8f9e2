"""Images through a whole session: from a prompt and a tool to the model, the store, a resume, a fork and a replay."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest
from native_tokenizer import write_tokenizer
from PIL import Image as Pillow
from tiny_models import seeing_model

from g4agent import Agent, Budget, CallRules, Image, Sampling, tool
from g4agent.gemma4.soft_tokens import keys_in
from g4agent.store import Store
from g4agent_torch import load
from g4agent_torch.runtime import TorchRuntime

pytestmark = pytest.mark.anyio


def square(colour: str, tokens: int = 70) -> Image:
    file = io.BytesIO()
    Pillow.new("RGB", (64, 48), colour).save(file, "png")
    return Image(file.getvalue(), name=f"{colour}.png", tokens=tokens)


@tool(where="host", effect="pure")
def draw() -> Image:
    """Draws a square."""
    return square("red")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> TorchRuntime:
    folder = tmp_path_factory.mktemp("seeing")
    seeing_model("E2B").save_pretrained(folder)
    write_tokenizer(folder, images=True)
    return load(str(folder), context_length=2048)


def agent(runtime: TorchRuntime, store: Path) -> Agent:
    """Its model writes nonsense, but the mask has it call the tool first."""
    return Agent(
        model=runtime,
        tools=[draw],
        store=store,
        calls=CallRules("required", parallel=False),
        budget=Budget(steps=2, step_tokens=40),
        sampling=Sampling(temperature=0),
    )


async def test_a_session_with_images_is_resumed_forked_moved_and_replayed(
    runtime: TorchRuntime, tmp_path: Path
) -> None:
    """Each goes on with the very same pictures, from the store alone; the model computes nothing twice."""
    mug = square("blue")
    eager = agent(runtime, tmp_path / "g4.db")
    first = await eager.run(["What is ", mug, "this?"])
    assert first.results[0].value == {"image": "red.png", "media_type": "image/png", "bytes": len(square("red").data)}
    with Store.open(tmp_path / "g4.db") as store, Store.open(tmp_path / "other.db") as other:
        tokens = store.transcript(first.session_id)
        assert keys_in(tokens) == {mug.key, square("red").key}
        assert store.steps(first.session_id)[0].text == "What isthis?"
        kept = store.images(first.session_id)
        assert [(each.image, each.call_id) for step in kept.values() for each in step] == [
            (mug, None),
            (square("red"), "s1c0"),
        ]
        store.export_session(first.session_id, tmp_path / "session.g4")
        assert other.images(other.import_session(tmp_path / "session.g4")) == kept
        fork = store.fork(first.session_id, 0)
        assert list(store.images(fork)) == [0]

    replayed = await eager.replay(first.session_id)
    assert replayed.divergence is None and replayed.steps == 3
    async with eager.session(first.session_id) as session:
        await session.run("And now?")
        assert session.recorder is not None and session.recorder.computed_tokens < len(tokens)
        ledger = session.window.ledger
        assert ledger is not None and ledger.user > mug.tokens // 2 and ledger.results > mug.tokens // 2
    resumed = await agent(runtime, tmp_path / "other.db").resume(first.session_id, ["Or ", square("green"), "?"])
    assert resumed.steps > 0

    with Store.open(tmp_path / "other.db") as other:
        names = {each.image.name for step in other.images(first.session_id).values() for each in step}
        assert names == {"blue.png", "red.png", "green.png"}
        other.delete_session(first.session_id)
    connection = sqlite3.connect(tmp_path / "other.db")
    assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,), "a deleted session's pictures stay"
    connection.close()
