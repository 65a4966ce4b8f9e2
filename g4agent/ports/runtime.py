"""The two levels at which a model engine can be plugged in.

A *token runtime* takes and gives token ids: the core renders, parses and keeps the transcript (`NativeConversation`).
A *chat runtime* only speaks chat messages and brings its own `Conversation`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from g4agent.messages import JsonValue, ToolResult

if TYPE_CHECKING:
    from g4agent.context.shelf import ResultShelf
    from g4agent.events import ModelEvent, Usage
    from g4agent.image import Image, ImagesOfCalls, Prompt
    from g4agent.tools import Tool

STOP_IDS = frozenset({1, 106, 50})
"""`<eos>`, `<turn|>` and `<|tool_response>`: Gemma 4's three stop tokens."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is."""

    name: str
    fingerprint: str
    """Names weights and tokenizer, so that a stored transcript is never read by others."""
    variant: Literal["small", "large"]
    """Decides how the model is told not to think: E2B, E4B and nano are small; 12B, 26B-A4B and 31B are large."""
    context_length: int
    """Tokens that fit in one session."""
    parameters: int
    dtype: str
    device: str
    token_bytes: float | None = None
    """What a further token takes in the KV cache; None where that is not known."""
    sees_images: bool = False
    """Whether prompts and tools' results may have images. A token runtime is then an `ImageRuntime`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. The defaults are those of Gemma 4's model card; `temperature=0` is greedy."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 64
    seed: int = 0
    """The random number for a position depends on the seed and the position only, so a resumed run samples the same."""

    def __post_init__(self) -> None:
        assert self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0


@dataclass(frozen=True, slots=True)
class OutputMask:
    """What a generation may write. Grammars are llguidance's Lark with control tokens by id; thoughts are free."""

    grammar: str | None = None
    """What may follow `<|tool_call>`, up to `<tool_call|>`. None: anything."""
    calls: Literal["allowed", "required", "forbidden"] = "allowed"
    """`required`: the generation writes a call before anything but a thought."""
    answer: str | None = None
    """What an answer may be, up to `<turn|>`. None: anything."""
    may_think: bool = False
    """Whether a thought may be opened where a call or a typed answer is due."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One call of `TokenEngine.generate`."""

    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[int] = STOP_IDS
    thought_limit: int | None = None
    """Tokens allowed inside thought channels during this request; at the cap `<channel|>` is forced. None: no limit."""
    in_thought: bool = False
    """True where the prompt ends inside an open thought channel."""
    mask: OutputMask | None = None
    """Only for engines of a `GrammarRuntime`."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token that is now part of the sequence."""

    id: int
    forced: bool = False
    """True where the engine wrote the token (a closed thought channel, the only one that a mask allowed)."""
    logprob: float | None = None
    """Natural logarithm of the token's probability among those that the mask allowed, before temperature and
    truncation; None where it was forced."""
    allowed_mass: float = 1.0
    """Probability that the model itself gave to what the mask allowed."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text ↔ ids. `encode` is for plain text only: whatever the text says, it never yields a control id."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Exact text, control tokens as their strings, incomplete UTF-8 as U+FFFD."""
        ...


@runtime_checkable
class TokenEngine(Protocol):
    """One session's token sequence over shared weights. Not safe for concurrent use; different engines are."""

    @property
    def tokens(self) -> Sequence[int]:
        """All ids of the sequence so far, forced and sampled."""
        ...

    @property
    def computed_tokens(self) -> int:
        """Forward work done by this engine over its life, in tokens. Equal to `len(tokens)` (less the last sampled
        ones that were not needed yet) as long as nothing was truncated."""
        ...

    async def append(self, ids: Sequence[int]) -> None:
        """Adds forced tokens. Raises ContextOverflowError, with nothing appended, if they do not fit."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        """Samples until a stop id (which is yielded and kept), `max_tokens`, or the end of the context window.

        A yielded token is part of `tokens`. Closing the iterator early leaves exactly the yielded tokens.
        """
        ...

    async def mark(self) -> None:
        """Remembers the present length, so that a later `truncate` to it computes nothing again."""
        ...

    async def truncate(self, length: int) -> None:
        """Cuts the sequence back to `length` tokens. What no mark can restore is computed again when it is needed."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a session's keys and values take, counted from what is stored."""

    tokens: int
    """Of which keys and values are held."""
    bytes: int
    plain_bytes: int
    """What they would take without compression, in the model's own precision."""


@runtime_checkable
class DurableEngine(TokenEngine, Protocol):
    """An engine whose keys and values survive the process: what `append` brings is looked up before it is computed."""

    async def checkpoint(self) -> MemoryUse | None:
        """Has everything computed so far on disk when it returns, so that whoever appends the same tokens, after a
        crash of this process too, goes on from here. None where nothing is computed yet, or nothing can be kept."""
        ...

    def take_reports(self) -> Sequence[str]:
        """What could not be read or kept since the last call, a sentence each; its tokens are computed again."""
        ...


@runtime_checkable
class ImageEngine(TokenEngine, Protocol):
    """An engine that takes soft tokens of images (`g4agent.gemma4.soft_tokens`)."""

    async def show(self, images: Iterable[Image]) -> None:
        """Gives the images whose soft tokens later calls of `append` bring. They are kept until `close`."""
        ...


@runtime_checkable
class TokenRuntime(Protocol):
    """One set of weights that serves any number of engines."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    async def open_engine(self) -> TokenEngine: ...

    async def close(self) -> None: ...


@runtime_checkable
class DurableRuntime(TokenRuntime, Protocol):
    """A token runtime that keeps the keys and values of its engines in files."""

    async def open_durable_engine(self, folder: Path) -> TokenEngine:
        """A new, empty session whose keys and values lie below `folder`: a `DurableEngine`, where that can be."""
        ...


@runtime_checkable
class ImageRuntime(TokenRuntime, Protocol):
    """A token runtime whose model sees images, if its `info` says so; its engines are `ImageEngine`s."""

    def soft_tokens(self, image: Image) -> int:
        """Vectors that the model makes of an image. May take long. Raises ImageError where it cannot be decoded."""
        ...


@runtime_checkable
class GrammarRuntime(TokenRuntime, Protocol):
    """A token runtime whose engines obey `GenerateRequest.mask`."""

    def accepts_grammar(self, text: str) -> bool:
        """Whether a grammar compiles here."""
        ...


@dataclass(frozen=True, slots=True)
class CallRules:
    """Which calls a model may make."""

    choice: str = "auto"
    """`auto`; `required`: each user turn begins with a call; `none`; or the name of the tool that must be called
    first."""
    parallel: bool = True
    """Whether one step may make several calls."""
    masked: bool = True
    """Whether calls are masked by their schemas where the engine can. Off, they are only validated."""


@dataclass(frozen=True, slots=True)
class ConversationSetup:
    """What stands in the system turn of a conversation, and which calls it allows."""

    system: str
    tools: tuple[Tool, ...]
    thinking: bool
    calls: CallRules = CallRules()
    answer_schema: Mapping[str, JsonValue] | None = None
    """JSON Schema of the answer that ends a turn; None: any text."""
    shelf: ResultShelf | None = None
    """Where results are kept of which the transcript only shows a part; None: they are shown whole, or refused."""

    @property
    def has_system_turn(self) -> bool:
        """Whether there is anything to say in a system turn."""
        return bool(self.system.strip() or self.tools or self.thinking)


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """Caps for one model step."""

    max_tokens: int
    thought_limit: int | None
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    """Change of a transcript since it was last taken: `tokens` replace everything from `start` on."""

    start: int
    tokens: tuple[int, ...]

    @property
    def end(self) -> int:
        """Length of the transcript after it."""
        return self.start + len(self.tokens)


@runtime_checkable
class Conversation(Protocol):
    """One dialogue with a model, in terms that do not depend on the engine.

    Order: `begin` (or `restore`), then per user turn `add_user`, and `generate` with `add_results` in between until a
    generation ends without calls.
    """

    async def begin(self, setup: ConversationSetup) -> None: ...

    async def restore(self, setup: ConversationSetup, tokens: Sequence[int]) -> None:
        """Takes up a stored transcript. It must end where a user turn, results, or a generation may follow."""
        ...

    async def add_user(self, prompt: Prompt) -> None:
        """Begins a user turn. Only a model that sees images is given any.

        Raises:
            ContextOverflowError: It does not fit.
            ImageError: An image cannot be decoded.
        """
        ...

    async def add_results(
        self, results: Sequence[ToolResult], images: ImagesOfCalls | None = None
    ) -> Sequence[ToolResult]:
        """Answers every call of the last generation, in order. Returns the results as the model sees them: shortened,
        or errors in the place of results that do not fit in the context window.

        Args:
            results: One per call.
            images: By call id; only a model that sees them is given any. Those for which there is no room are left out.
        """
        ...

    def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        """One model step; its last event is `GenerationFinished`. Close it before that and `rewind` must follow."""
        ...

    async def rewind(self) -> None:
        """Takes back a generation that is unfinished, or finished and not yet committed."""
        ...

    def take_delta(self) -> TranscriptDelta:
        """The change since the last call, to be committed with the step."""
        ...

    @property
    def length(self) -> int:
        """Tokens in the transcript."""
        ...

    @property
    def usage(self) -> Usage:
        """All tokens appended and generated over the conversation's life, those taken back included. No seconds."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class ChatRuntime(Protocol):
    """An engine that brings its own conversation (chat-only servers, and the scripted one of `g4agent.testing`)."""

    @property
    def info(self) -> ModelInfo: ...

    async def open_conversation(self) -> Conversation: ...

    async def close(self) -> None: ...
