"""What was saved of one sequence and of no other is removed, when its session is deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from g4agent_torch.pages.address import Chain, named, next_address, segments_in, start_of
from g4agent_torch.pages.pins import guard, pinned_names
from g4agent_torch.pages.quota import File, files


def forget(folder: Path, tokens: Sequence[int], shared: int) -> int:
    """Removes the files of a sequence but for those of its start that others have, too; what is in use stays.

    Of all models and rates, as the ids alone decide. Parts that the sequence had taken back before its end may stay,
    until the quota needs their place.

    Args:
        folder: That of the pages.
        tokens: The sequence.
        shared: How many tokens of its start are another stored session's as well.

    Returns:
        The bytes that were freed.
    """
    with guard(folder, alone=True):
        behind: defaultdict[str, list[File]] = defaultdict(list)
        for file in files(folder):
            behind[file.parent].append(file)
        addresses = {file.address for followers in behind.values() for file in followers}
        doomed: list[File] = []
        for root in behind.keys() - addresses:
            chain = Chain(root)
            for segment in range(segments_in(len(tokens)) + 1):
                at, start = chain.before(segment, tokens), start_of(segment)
                if start > shared:
                    doomed += behind[at]  # nobody else gets here
                else:
                    doomed += [file for file in behind[at] if _is_own(file, tokens, start, shared)]
        pinned = pinned_names(folder)
        gone = [file for file in doomed if file.path.name not in pinned]
        for file in gone:
            file.path.unlink(missing_ok=True)
    return sum(file.size for file in gone)


def _is_own(file: File, tokens: Sequence[int], start: int, shared: int) -> bool:
    """Whether a file holds what stands at `start`, and depends on more than others share."""
    end = start + file.tokens
    if end > len(tokens):
        return False
    ids = named(tokens, start, end)
    return start + len(ids) > shared and file.address == next_address(file.parent, ids)
