"""The embedded runtime holds what is asked of every runtime, and the checks catch one that does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from g4agent.ports.runtime import GenerateRequest, SampledToken
from g4agent.testing.engine import ScriptedEngine, ScriptedRuntime
from g4agent.testing.runtime_checks import RUNTIME_CHECKS
from g4agent_torch import load
from g4agent_torch.runtime import TorchRuntime

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def nano() -> TorchRuntime:
    return load("nano")


@pytest.mark.parametrize("name", RUNTIME_CHECKS)
async def test_nano(name: str, nano: TorchRuntime) -> None:
    """A third party's runtime is measured by what ours does."""
    await RUNTIME_CHECKS[name](nano)


class Forgetful(ScriptedRuntime):
    """Breaks the contract all over: engines share one sequence, keep no limit, and give every token a new value."""

    async def open_engine(self) -> ScriptedEngine:
        return _Forgetful(self)


class _Forgetful(ScriptedEngine):
    shared = 300

    async def append(self, ids: object) -> None:
        return None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        for _ in range(request.max_tokens + 1):
            _Forgetful.shared += 1
            yield SampledToken(_Forgetful.shared)

    async def truncate(self, length: int) -> None:
        return None


@pytest.mark.parametrize("name", [name for name in RUNTIME_CHECKS if not name.startswith("text_")])
async def test_a_bad_engine_fails_every_check(name: str) -> None:
    """A check that everything passes tests nothing."""
    with pytest.raises(AssertionError):
        await RUNTIME_CHECKS[name](Forgetful([]))
