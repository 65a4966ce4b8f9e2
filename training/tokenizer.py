"""nano's tokenizer: Gemma 4's control tokens at their own ids, and a small byte-level BPE for the rest.

Words are cut so that the same word has the same ids in a sentence and between quotes, because copying is what the
model does all day: spaces stand alone except before a few function words, digits alone, and the letters of ids too.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from g4agent.gemma4.tokens import CONTROL_TOKENS, IMAGE_OPEN

VOCABULARY = 2048
CONTROLS = 107
NEWLINE = 107
CONTROL_STRINGS = [CONTROL_TOKENS.get(id, f"<unused{id}>") if id < IMAGE_OPEN else "" for id in range(CONTROLS)]

FUNCTION_WORDS = (
    "the a an to of and is for in my it with at or i me be not on you your this that so can are as by no one all cannot"
)
STRUCTURE = (
    r",parameters:\{properties:\{",
    r":\{description:",
    r",type:",
    r"\}\},required:\[",
    r"\],type:",
    r"\},",
    r"\{description:",
    r"\}\},",
    r"\}\}",
    r"\{\}",
    r"\[\]",
    r",items:\{type:",
    r"\},type:",
    r"\{type:",
)
"""Runs of punctuation and keys in declarations, each one token."""


def phrases() -> list[str]:
    """Texts of the examples' prompts that never change, and are never copied: each may become few tokens."""
    from coding_assistant.agent import POLICY as CODING
    from retail_checkout.agent import POLICY as RETAIL
    from retail_checkout.tools import TOOLS

    from g4agent_coding import tools

    found = re.findall(r"[^.,]+[.,]", f"{RETAIL} {CODING}")
    for tool in (*TOOLS, *tools()):
        properties = tool.declaration.parameters["properties"]
        found += [tool.description, *(about["description"] for about in properties.values())]
    return sorted((text for text in set(found) if " " in text), key=lambda text: (-len(text), text))


PATTERN = "|".join(
    (
        *map(re.escape, phrases()),
        *STRUCTURE,
        rf" (?:{'|'.join(FUNCTION_WORDS.split())})(?![\p{{L}}\p{{N}}])",
        r"\p{N}",
        r"[A-Z](?=[A-Z]?\p{N})",  # letters of ids such as BK204
        r"\p{L}+",
        r"\n",
        r"\s{2,}(?=\S)",
        r"\s",
        r"[^\s\p{L}\p{N}]",
    )
)
_CONTROL = re.compile("|".join(re.escape(text) for text in sorted(CONTROL_STRINGS, key=len, reverse=True)))


def learn(texts: Iterator[str]) -> Tokenizer:
    """Trains the merges on transcripts."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("\n")[0][0]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=30,
        initial_alphabet=alphabet,
        show_progress=False,
        special_tokens=[*CONTROL_STRINGS, newline],
    )
    tokenizer.train_from_iterator((_CONTROL.sub("\n", text) for text in texts), trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = [token for token in written["added_tokens"] if token["id"] < CONTROLS]
    ready: Tokenizer = Tokenizer.from_str(json.dumps(written))
    ready.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL_STRINGS])
    check(ready)
    return ready


def check(tokenizer: Tokenizer) -> None:
    """Asserts what the product relies on."""
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    for id, text in enumerate(CONTROL_STRINGS):
        assert tokenizer.encode(text, add_special_tokens=False).ids == [id], text
    assert tokenizer.encode("\n", add_special_tokens=False).ids == [NEWLINE]
    samples = ['<bos>a <|"|>b', "x  y\n\n  z\té €👍 BK204", "def f(a):\n    return a + b\n"]
    for text in samples:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text
    word, quoted = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("Zorblat", "the Zorblat."))
    assert quoted[-len(word) - 1 : -1] == word


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes what `AutoTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131_072,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def corpus(seed: int, sessions: int) -> Iterator[str]:
    """Transcripts to learn the merges from."""
    from training.data import draw

    rng = random.Random(seed)
    for _ in range(sessions):
        yield draw(rng, "train", 1.0).text()
