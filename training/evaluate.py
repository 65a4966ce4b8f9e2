"""Greedy evaluation on held-out words, without a grammar: single calls, whole dialogues, and tasks run to their end.

    python -m training.evaluate --model runtimes/g4agent_torch/nano --count 100

`call` and `dialogue` give the model the right history and compare what it writes next; `retail task` and `coding task`
let its own calls act on a real shop or project and compare the end state with the oracle's.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Gemma4ForCausalLM

from g4agent.gemma4.parse import CallEnd, parse
from g4agent.gemma4.payload import CallSyntaxError, read_strict
from g4agent_torch.kv import DenseKVStore, KVStore
from g4agent_torch.turboquant.store import TurboQuantKVStore
from training import coding, export, generic, retail, tokenizer
from training.dialogue import Dialogue
from training.words import Split

STOPS = frozenset(export.STOPS)


class Nano:
    """A model and its cache: text in, greedy ids out.

    Args:
        folder: The model.
        kv_bits: Of the cache, as `g4agent_torch.load` takes them.
    """

    def __init__(self, folder: Path, kv_bits: str = "16") -> None:
        self.model = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._store: KVStore = DenseKVStore(self.model.config)
        if kv_bits != "16":
            self._store = TurboQuantKVStore(self.model.get_decoder(), kv_bits)
            self.model.set_attn_implementation(self._store.attention)
        self.tokens: Tokenizer = tokenizer.load(folder)

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text, control tokens allowed."""
        ids: list[int] = self.tokens.encode(text, add_special_tokens=False).ids
        return ids

    @torch.no_grad()
    def generate(self, ids: list[int], most: int = 200) -> list[int]:
        """Until a stop token, which is the last id."""
        written: list[int] = []
        feed, cache = ids, self._store.new().layers
        while len(written) < most:
            out = self.model(input_ids=torch.tensor([feed]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            feed = [int(out.logits[0, -1].argmax())]
            written += feed
            if feed[0] in STOPS:
                break
        return written

    def calls(self, written: list[int]) -> list[tuple[str, dict[str, Any]]]:
        """The well-formed calls of a piece of the model's turn; others are left out."""
        found = []
        for event in parse(self.tokens, written):  # type: ignore[arg-type]
            if isinstance(event, CallEnd):
                try:
                    found.append(read_strict(event.call.payload))
                except CallSyntaxError:
                    continue
        return found


def exact(nano: Nano, talk: Dialogue, score: Counter[str], domain: str) -> None:
    """Every piece that the model writes, given the right history."""
    history, good, whole = "", True, True
    pieces = talk.pieces
    index = 0
    while index < len(pieces):
        text, said = pieces[index]
        if not said:
            history += text
            index += 1
            continue
        wanted = ""
        while index < len(pieces) and pieces[index][1]:
            wanted += pieces[index][0]
            index += 1
        expected = nano.encode(wanted)
        written = nano.generate(nano.encode(history), len(expected) + 4)
        kind = "call" if "<|tool_call>" in wanted else "answer"
        good = nano.calls(written) == nano.calls(expected) if kind == "call" else written == expected
        score[f"{domain} {kind} all"] += 1
        score[f"{domain} {kind}"] += good
        whole &= good
        history += wanted
    score[f"{domain} dialogue all"] += 1
    score[f"{domain} dialogue"] += whole


def run(nano: Nano, talk: Dialogue, act: Callable[[str, dict[str, Any]], dict[str, Any]], steps: int = 12) -> str:
    """Closed loop: the model's own calls are executed until it answers; returns the answer ('' if it never does)."""
    history = nano.encode(talk.text())
    for _ in range(steps):
        written = nano.generate(history)
        history += written
        calls = nano.calls(written)
        if written[-1] != 50 or not calls:
            return nano.tokens.decode(written, skip_special_tokens=False) if not calls else ""
        before = len(talk.pieces)
        results = []
        for name, arguments in calls:
            try:
                results.append((name, act(name, arguments)))
            except (TypeError, AttributeError, KeyError) as error:
                results.append((name, {"error": f"bad call: {error}"[:60]}))
        talk.results(*results)
        history += nano.encode("".join(text for text, _ in talk.pieces[before:]))
    return ""


def retail_task(nano: Nano, rng: random.Random, split: Split, score: Counter[str]) -> None:
    """One customer, served by the model on a real shop; passes when the shop and the last words are the oracle's."""
    case = retail.case(rng, split)
    shop = case.shop()
    talk = Dialogue(retail.POLICY, retail.declare(retail.TOOLS), False)
    talk.user(case.wish.prompt)
    answer = run(nano, talk, lambda name, arguments: retail.execute(shop, name, arguments))
    passed = case.passed(shop, answer)
    for name in (f"retail task {case.wish.kind}", "retail task"):
        score[f"{name} all"] += 1
        score[name] += passed


def coding_task(nano: Nano, rng: random.Random, split: Split, score: Counter[str]) -> None:
    """One bug; passes when the module is again what the oracle makes it."""
    bug = coding.project(rng, split)
    talk = Dialogue(coding.POLICY, coding.declare(coding.tools()), False)
    talk.user(rng.choice(coding.ASK_OPEN))
    files = {bug.path: bug.source, bug.test_path: bug.test_source}
    answer = run(nano, talk, lambda name, arguments: coding.execute(bug, files, name, arguments))
    score["coding task all"] += 1
    score["coding task"] += bool(answer) and files[bug.path] == bug.source.replace(bug.wrong, bug.right)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=export.NANO)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--split", choices=["train", "heldout"], default="heldout")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    nano, score = Nano(arguments.model), Counter[str]()
    rng, split = random.Random(arguments.seed), arguments.split
    for _ in range(arguments.count):
        exact(nano, generic.dialogue(rng, split, turns=1), score, "generic")
        exact(nano, retail.dialogue(rng, split), score, "retail")
        exact(nano, coding.dialogue(rng, split), score, "coding")
        retail_task(nano, rng, split, score)
        coding_task(nano, rng, split, score)
    for name in sorted(score):
        if not name.endswith(" all"):
            total = score[f"{name} all"]
            print(f"{name:32} {score[name]:4} / {total:4}  {score[name] / total:.0%}")


if __name__ == "__main__":
    main()
