"""Files of pages for tests."""

from __future__ import annotations

import torch

from g4agent_torch.pages.address import next_address, root_address
from g4agent_torch.pages.page_file import Contents, Stretch
from g4agent_torch.pages.page_store import Ref

ROOT = root_address("a model", "float32", "dense")


def contents(seed: int = 0, size: int = 100) -> Contents:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    keys = torch.randn(1, 2, 5, 8, generator=generator)
    return Contents(
        {
            "1.codes": Stretch(codes, 16),
            "2.keys": Stretch(keys, 128),
            "2.values": Stretch(keys.bfloat16(), 128),
            "3.keys": Stretch(keys[:, :, :0].contiguous(), 133),
        }
    )


def ref(seed: int = 0, parent: str = ROOT, kind: str = "page") -> Ref:
    ids = [seed] * 128
    return Ref("page" if kind == "page" else "rows", parent, len(ids), next_address(parent, ids))


def same(a: Contents, b: Contents) -> bool:
    return list(a.stretches) == list(b.stretches) and all(
        torch.equal(x.tensor, y.tensor) and x.tensor.dtype == y.tensor.dtype and x.position == y.position
        for x, y in zip(a.stretches.values(), b.stretches.values(), strict=True)
    )
