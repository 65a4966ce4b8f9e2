"""One set of Gemma 4 weights in this process."""

from __future__ import annotations

from pathlib import Path

from g4agent.errors import ImageError
from g4agent.image import Image
from g4agent.ports.runtime import ModelInfo
from g4agent_torch.decoder import Decoder
from g4agent_torch.engine import TorchEngine, Turns
from g4agent_torch.kv import KVStore
from g4agent_torch.masking import GrammarCompiler
from g4agent_torch.pages.address import root_address
from g4agent_torch.pages.keeper import Keeper
from g4agent_torch.pages.page_store import opened
from g4agent_torch.residents import Residents
from g4agent_torch.tokenizer import TorchTokenizer
from g4agent_torch.vision import Vision


class TorchRuntime:
    """`GrammarRuntime`, `DurableRuntime` and `ImageRuntime` over torch. Made by `g4agent_torch.load`."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: TorchTokenizer,
        decoder: Decoder,
        store: KVStore,
        grammars: GrammarCompiler,
        residents: Residents,
        *,
        prefill_chunk: int,
        page_bytes: int,
        vision: Vision | None = None,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._decoder: Decoder | None = decoder
        self._vision = vision
        self._store = store
        self._grammars = grammars
        self._turns = Turns()
        self._residents = residents
        self._prefill_chunk = prefill_chunk
        self._page_bytes = page_bytes
        """What pages may take on disk; 0: none are kept."""

    async def open_engine(self) -> TorchEngine:
        """A new, empty session. Engines take turns on the weights, token by token."""
        return self._engine(None)

    async def open_durable_engine(self, folder: Path) -> TorchEngine:
        assert self._decoder is not None, "the runtime is closed"
        if not self._page_bytes:
            return self._engine(None)
        root = root_address(self.info.fingerprint, self.info.dtype, self._store.described)
        try:
            keeper = Keeper(opened(folder, self._page_bytes), root, self._store.new, self._decoder.device)
        except OSError as error:
            engine = self._engine(None)
            engine.reports.append(f"Pages of this session cannot be kept: {error}")
            return engine
        return self._engine(keeper)

    def _engine(self, keeper: Keeper | None) -> TorchEngine:
        assert self._decoder is not None, "the runtime is closed"
        return TorchEngine(
            self._decoder,
            self._store,
            self._grammars,
            self._turns,
            self._residents,
            context_length=self.info.context_length,
            prefill_chunk=self._prefill_chunk,
            keeper=keeper,
            vision=self._vision,
        )

    def soft_tokens(self, image: Image) -> int:
        if self._vision is None:
            raise ImageError(f"{self.info.name} sees no images.", hint="Use a checkpoint that has its vision part.")
        return self._vision.soft_tokens(image)

    def accepts_grammar(self, text: str) -> bool:
        return self._grammars.accepts(text)

    async def close(self) -> None:
        """Lets the weights go; they are freed with the last engine."""
        self._decoder = self._vision = None
