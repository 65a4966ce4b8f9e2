"""A cache's parts taken out and put back: pages of full-attention layers, and rows of whatever is younger.

At a length n, a layer consists of `pages_at(n)` pages and of the rows from `rows_from(n)` to n. Nothing else of it
matters for what follows: a layer made of copies of these gives the same results to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from g4agent_torch.byte_windows import ByteWindowLayer
from g4agent_torch.kv import DenseKVCache, GrowingLayer, Span, WindowLayer
from g4agent_torch.pages.address import segments_in, start_of
from g4agent_torch.pages.page_file import Contents, Stretch
from g4agent_torch.turboquant.cache import PagedLayer

Parts: TypeAlias = dict[str, Tensor]


class LayerState(Protocol):
    """One layer as pages and rows."""

    def pages_at(self, length: int) -> int: ...

    def rows_from(self, length: int) -> int: ...

    def page(self, index: int) -> Parts:
        """A page's tensors; they never change."""
        ...

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values [1, KV, end - start, D], which may change when the layer is cut; None if they are gone."""
        ...

    def put_back(self, length: int, pages: Sequence[Parts], keys: Tensor, values: Tensor) -> None:
        """Fills an empty layer."""
        ...

    def adopt(self, index: int, page: Parts) -> None:
        """Takes equal tensors in the place of a page's own."""
        ...

    def bytes_at(self, length: int) -> tuple[int, int]:
        """What is stored for `length` tokens, and what would be in the model's precision."""
        ...


class GrowingState:
    """A full layer in full precision: its pages are copies of its buffer."""

    def __init__(self, layer: GrowingLayer) -> None:
        self._layer = layer

    def pages_at(self, length: int) -> int:
        return segments_in(length)

    def rows_from(self, length: int) -> int:
        return start_of(segments_in(length))

    def page(self, index: int) -> Parts:
        keys, values = self.rows(start_of(index), start_of(index + 1))
        return {"keys": keys.clone(), "values": values.clone()}

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        assert self._layer.keys is not None and self._layer.values is not None
        return self._layer.keys[:, :, start:end], self._layer.values[:, :, start:end]

    def put_back(self, length: int, pages: Sequence[Parts], keys: Tensor, values: Tensor) -> None:
        self._layer.lazy_initialization(keys, values)
        self._layer.keys = torch.cat([*(page["keys"] for page in pages), keys], 2)
        self._layer.values = torch.cat([*(page["values"] for page in pages), values], 2)
        self._layer.length = length

    def adopt(self, index: int, page: Parts) -> None:
        pass  # it has copies only

    def bytes_at(self, length: int) -> tuple[int, int]:
        return (_row_bytes(self.rows(0, 1)) * length,) * 2


class PagedState:
    """A full layer in codes. The first page carries the sinks and the centre of the keys."""

    def __init__(self, layer: PagedLayer) -> None:
        self._layer = layer

    def pages_at(self, length: int) -> int:
        return self._layer.coded_pages(length - 1)

    def rows_from(self, length: int) -> int:
        return start_of(self.pages_at(length))

    def page(self, index: int) -> Parts:
        parts = {"codes": self._layer.pages[index]}
        if index == 0:
            assert self._layer.sinks is not None
            parts |= {"sink_keys": self._layer.sinks[0], "sink_values": self._layer.sinks[1]}
            if self._layer.centre is not None:
                parts["centre"] = self._layer.centre
        return parts

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        return _span_rows(self._layer.span, start, end)

    def put_back(self, length: int, pages: Sequence[Parts], keys: Tensor, values: Tensor) -> None:
        self._layer.lazy_initialization(keys, values)
        assert self._layer.span is not None
        if pages:
            self._layer.pages = [page["codes"] for page in pages]
            self._layer.sinks = pages[0]["sink_keys"], pages[0]["sink_values"]
            self._layer.centre = pages[0].get("centre")
        self._layer.span = Span(keys, values, self.rows_from(length), length, self._layer.span.window)

    def adopt(self, index: int, page: Parts) -> None:
        self._layer.adopt(index, page["codes"])

    def bytes_at(self, length: int) -> tuple[int, int]:
        row, pages = _row_bytes(self.rows(length - 1, length)), self.pages_at(length)
        held = row * (length - self.rows_from(length))
        if pages:  # all alike, but for the first, which has sinks and centre
            held += sum(tensor.nbytes for tensor in self.page(0).values())
            held += sum(tensor.nbytes for tensor in self.page(pages - 1).values()) * (pages - 1) if pages > 1 else 0
        return held, row * length


class WindowState:
    """A sliding layer: rows only."""

    def __init__(self, layer: WindowLayer) -> None:
        self._layer = layer

    def pages_at(self, length: int) -> int:
        return 0

    def rows_from(self, length: int) -> int:
        return max(0, length - self._layer.window)

    def page(self, index: int) -> Parts:
        return {}

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        return _span_rows(self._layer.span, start, end)

    def put_back(self, length: int, pages: Sequence[Parts], keys: Tensor, values: Tensor) -> None:
        self._layer.lazy_initialization(keys, values)
        self._layer.span = Span(keys, values, self.rows_from(length), length, self._layer.window)

    def adopt(self, index: int, page: Parts) -> None:
        pass  # it has no pages

    def bytes_at(self, length: int) -> tuple[int, int]:
        rows = self.rows(length - 1, length)
        row, count = _row_bytes(rows), length - self.rows_from(length)
        plain = row
        if isinstance(self._layer, ByteWindowLayer):
            assert rows is not None
            plain = self._layer.plain_bytes(row, rows[0].shape[1])
        return row * count, plain * count


class CacheState:
    """All storing layers of a cache.

    Args:
        cache: Of one sequence. `put_back` wants an empty one.
    """

    def __init__(self, cache: DenseKVCache) -> None:
        self.cache = cache
        self._layers = {
            index: state for index, layer in enumerate(cache.layers.layers) if (state := _state(layer)) is not None
        }

    @property
    def shares_pages(self) -> bool:
        """Whether the cache consists of the very tensors of its pages. One in full precision has copies of them."""
        return any(isinstance(layer, PagedState) for layer in self._layers.values())

    def bytes_at(self, length: int) -> tuple[int, int]:
        """Bytes of keys and values of `length` tokens, and what they would be in the model's precision."""
        held, plain = zip(*(layer.bytes_at(length) for layer in self._layers.values()), strict=True)
        return sum(held), sum(plain)

    def pages_at(self, length: int) -> int:
        """Pages that a cache of `length` tokens consists of."""
        return max(layer.pages_at(length) for layer in self._layers.values())

    def rows_from(self, length: int) -> int:
        """The first position of which a cache of `length` tokens needs rows."""
        return min(layer.rows_from(length) for layer in self._layers.values())

    def page(self, index: int) -> Contents:
        """A page of all layers, on the device where it is; nothing in it will change."""
        return Contents(
            {
                f"{number}.{name}": Stretch(tensor, start_of(index))
                for number, layer in self._layers.items()
                for name, tensor in layer.page(index).items()
            }
        )

    def adopt(self, index: int, contents: Contents) -> Contents:
        """Has the cache consist of another's copy of a page, if it is the same to the bit; returns what it consists of.

        Two sessions that computed the same tokens in different passes differ in rounding: then each keeps its own.
        """
        mine = self.page(index)
        if any(
            not torch.equal(stretch.tensor, contents.stretches[name].tensor) for name, stretch in mine.stretches.items()
        ):
            return mine
        for number, layer in self._layers.items():
            layer.adopt(index, _of_layer(contents.stretches, number))
        return contents

    def rows(self, start: int, end: int) -> Contents | None:
        """Copies, on the CPU, of what a cache of `end` tokens needs of the rows from `start` on.

        None where a layer has let go of some: a cut went back as far as it could.
        """
        stretches = {}
        for number, layer in self._layers.items():
            first = max(start, layer.rows_from(end))
            if (rows := layer.rows(first, end)) is None:
                return None
            for name, tensor in zip(("keys", "values"), rows, strict=True):
                copy = torch.empty(tensor.shape, dtype=tensor.dtype)
                stretches[f"{number}.{name}"] = Stretch(copy.copy_(tensor), first)
        return Contents(stretches)

    def put_back(self, length: int, pages: Sequence[Contents], rows: Sequence[Contents], device: torch.device) -> None:
        """Fills an empty cache to `length` tokens.

        Args:
            length: Tokens.
            pages: The first `pages_at(length)` pages, on the device; kept as they are where layers keep codes.
            rows: Neighbouring stretches of rows that cover `rows_from(length)` to `length`, in order.
            device: Where the layers lie.
        """
        for number, layer in self._layers.items():
            parts = [_of_layer(page.stretches, number) for page in pages[: layer.pages_at(length)]]
            first = layer.rows_from(length)
            keys, values = (_joined(rows, f"{number}.{name}", first, length).to(device) for name in ("keys", "values"))
            layer.put_back(length, parts, keys, values)


def _state(layer: Any) -> LayerState | None:
    if isinstance(layer, GrowingLayer):
        return GrowingState(layer)
    if isinstance(layer, PagedLayer):
        return PagedState(layer)
    return WindowState(layer) if isinstance(layer, WindowLayer) else None  # None: shares those of a layer below


def _span_rows(span: Span | None, start: int, end: int) -> tuple[Tensor, Tensor] | None:
    return None if span is None or start < span.base else span.rows(start, end)


def _row_bytes(row: tuple[Tensor, Tensor] | None) -> int:
    """Of one token."""
    assert row is not None
    return sum(tensor.nbytes for tensor in row)


def _of_layer(stretches: Mapping[str, Stretch], number: int) -> Parts:
    prefix = f"{number}."
    return {name.removeprefix(prefix): s.tensor for name, s in stretches.items() if name.startswith(prefix)}


def _joined(rows: Sequence[Contents], name: str, start: int, end: int) -> Tensor:
    """Positions `start` to `end` of a layer's rows, in memory of their own."""
    pieces, at = [], start
    for contents in rows:
        tensor, position = contents.stretches[name]
        if at < position + tensor.shape[2]:
            assert position <= at, (name, position, at)
            pieces.append(tensor[:, :, at - position :])
            at = position + tensor.shape[2]
    assert at == end, (name, at, end)
    return torch.cat(pieces, 2) if pieces else tensor[:, :, :0].clone()
