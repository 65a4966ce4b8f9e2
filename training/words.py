# ruff: noqa: SIM905 - word lists read better as text
"""Words that dialogues are made of, split by hash into a training and a held-out part."""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "heldout"]


def is_heldout(word: str) -> bool:
    """Whether a word belongs to the held-out seventh."""
    return zlib.crc32(word.encode()) % 7 == 0


def part(words: Sequence[str], split: Split) -> list[str]:
    """The words of one split."""
    return [word for word in words if is_heldout(word) == (split == "heldout")]


FIRST = tuple(
    """
    Mia Liam Noah Emma Olivia Ava Sophia Lucas Mason Ethan Yusuf Fatima Omar Aisha Raj Priya Chen Wei Mei Kenji
    Sofia Isabella Ivan Olga Anya Juan Lucia Harper James Daiki Amara Kofi Zara Leila Noor Evan Ruby Jack Nora
    Felix Hugo Clara Jonas Greta Sven Ingrid Pavel Mila Tariq Yara Maria Peter Yuki Luis Victor Daniel Samuel
    Zoe Alice Bruno Carmen Dario Elena Farid Gloria Hannah Igor Jana Karim Laura Marco Nadia Oscar Paula Quentin
    Rosa Stefan Tanya Ulrich Vera Walter Xenia Yannick Zeno Adele Boris Celia Dmitri Edith Fabio Gina Heidi
    Isaac Judith Klaus Livia Milan Nils Ophelia Pedro Ramona Silas Thea Umar Viola Wanda Agnes Basil Cora Dexter
    Esther Floyd Gwen Hector Iris Joel Kira Lena Miles Nina Otto Petra Ralph Sara Theo Ursula Vince Wendy
""".split()
)
LAST = tuple(
    """
    Smith Johnson Garcia Kim Chen Patel Nguyen Li Silva Santos Khan Ali Rossi Moore Lopez Davis Brown Taylor
    Wilson Jackson Hernandez Kovacs Novak Muller Schmidt Ito Tanaka Sato Okafor Mensah Haddad Ahmed Johansson
    Larsen Dubois Moreau Ferrari Costa Ivanov Petrov Weber Olsen Sharma Martin Jansen Kowalski Adams Baker
    Carter Diaz Evans Fischer Green Hughes Irwin Jensen Keller Lambert Meyer Nolan Owens Parker Quinn Reyes
    Stone Turner Underwood Vogel Walker Xu Young Zimmer Abbott Bishop Castro Doyle Ellis Foster Grant Hale
    Ingram Joyce Knight Lang Marsh North Osborn Porter Reed Shaw Tate Vance Webb York Zapata Amsel Becker Conti
    Drake Eklund Frost Gallo Holm
""".split()
)
WORDS = tuple(
    """
    alpha amber anchor apple arrow autumn bamboo beacon berry bloom breeze bridge brook canyon cedar cherry
    cloud coral crane crystal dawn delta desert drift eagle ember falcon fern field flame forest frost garden
    glacier grove harbor hazel horizon island ivory jade juniper lagoon lake lantern laurel lemon lily lotus
    maple marble meadow mesa mint mirage mist moon moss north oak oasis ocean olive onyx opal orbit orchid palm
    pearl pebble pine plum pond prairie quartz rain raven reef ridge river robin rose sage sand shadow silver
    sky slate snow spruce star stone storm summit sun swan terra thistle tide timber topaz trail valley velvet
    violet wave willow wind winter wolf wren zephyr acorn badge basket bell blanket bottle branch brick bucket
    button cabin cable candle canvas carpet castle chain chalk circle clay clock coin comet copper corner cotton
    cradle crown cup curtain daisy dice dolphin door dragon drum dust engine feather fence fiddle flag flute fox
    gate ginger glass glove goose grape hammer hat helmet honey hook horn ink iron jar kettle key kite ladder
    lamp leaf lens lock magnet map mask mill mirror needle nest net nut onion paddle page paint paper parrot
    pencil pepper piano pillow pin pipe planet plate pocket poem pony pump puzzle quill rabbit radio rail ribbon
    ring rocket rope saddle sail salt scarf seed shell shield ship shovel silk spark spoon spring square stamp
    steam string sugar table tiger torch tower toy train tulip tunnel turtle umbrella vase violin wagon wall
    watch wheel whistle window wing wool yarn zebra
""".split()
)
CITIES = tuple(
    """
    Paris Rome Oslo Tokyo Berlin Madrid Lisbon Vienna Prague Dublin London Cairo Lagos Nairobi Delhi Mumbai
    Seoul Beijing Sydney Toronto Boston Chicago Denver Austin Lima Quito Bogota Havana Athens Zurich Geneva
    Milan Naples Porto Seville Lyon Nice Hamburg Munich Cologne Dover Salem Clinton Ashland Milton Oxford
    Georgetown Arlington Newport Bristol Camden Dayton Fairview Franklin Greenville Hudson Kingston Lexington
    Madison Manchester Marion
""".split()
)
COLOURS = tuple(
    """
    red blue green black white silver purple grey yellow orange navy brown pink beige teal gold
""".split()
)
PRODUCTS = (
    *("desk lamp", "floor lamp", "coffee mug", "tea pot", "backpack", "water bottle", "notebook", "office chair"),
    *("wall clock", "picture frame", "wool blanket", "rain jacket", "bike helmet", "kitchen scale", "door mat"),
    *("phone case", "travel pillow", "garden hose", "tool box", "table fan", "running shoes", "coffee maker", "tablet"),
    *("air purifier", "tea kettle", "book shelf", "pet bed", "vacuum cleaner", "hiking boots", "sunglasses", "bicycle"),
    *("fleece jacket", "luggage set", "grill", "perfume", "yoga mat", "sleeping bag", "hand mixer", "baking tray"),
    *("shower curtain", "bath towel", "hair dryer", "camping stove", "soccer ball", "tennis racket", "winter gloves"),
    *("leather wallet", "key holder", "flower vase", "paint set", "bread knife", "soup bowl", "candle holder"),
    *("laptop stand", "mouse pad", "card game", "music box", "snow shovel", "fishing rod", "bird feeder", "oven mitt"),
)
STREETS = (
    *("Oak Street", "Mill Lane", "Park Avenue", "Station Road", "Hill Street", "River Road", "Church Lane"),
    *("Garden Street", "King Street", "Lake View", "Harbour Road", "Maple Drive", "Bridge Street", "Castle Road"),
    *("School Lane", "Forest Avenue", "Market Square", "Queen Street", "Valley Road", "Meadow Lane", "Elm Court"),
)
COUPONS = tuple(
    """
    SPRING SUMMER AUTUMN WINTER HELLO SAVE THANKS FRIEND BONUS LUCKY HAPPY SUNNY FRESH EXTRA SUPER PARTY DEAL
    GIFT MAGIC PRIME
""".split()
)
_KNOWN = tuple(
    sorted(
        {word.lower() for words in (FIRST, LAST, WORDS, CITIES, COUPONS) for word in words}
        | {word for product in PRODUCTS for word in product.split()}
    )
)
_ONSETS = """
    b d f g h j k l m n p r s t v w z br dr fl gr kl pr st tr sh ch
""".split()
_VOWELS = """
    a e i o u a e i o ai ea ou
""".split()
_CODAS = ["n", "r", "l", "s", "t", "k", "m", "x", "nd", "rt"] + [""] * 8


def syllables(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """An invented lower-case word: copying it is the only way to get it right."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(low, high))
    )


def blend(rng: random.Random, split: Split) -> str:
    """The beginning of one known word and the end of another: all pieces of the tokenizer, in orders never seen.

    Without it a model learns to copy the words it knows, and writes one of those where another stands.
    """
    pool = part(_KNOWN, split)
    head, tail = rng.choice(pool), rng.choice(pool)
    return head[: rng.randint(2, max(2, len(head) - 1))] + tail[rng.randint(0, max(0, len(tail) - 2)) :]


def invented(rng: random.Random, split: Split) -> str:
    """A lower-case word that is in no list."""
    return blend(rng, split) if rng.random() < 0.6 else syllables(rng)


def digits(rng: random.Random, count: int) -> str:
    """Decimal digits, the first not 0."""
    return str(rng.randrange(10 ** (count - 1), 10**count))


def code(rng: random.Random) -> str:
    """An identifier like those of shops, tickets and parcels."""
    letters = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 4)))
    return letters + rng.choice(["", "", "-"]) + digits(rng, rng.randint(2, 6))


def person(rng: random.Random, split: Split) -> str:
    """First and last name."""
    first = rng.choice(part(FIRST, split)) if rng.random() < 0.4 else invented(rng, split).capitalize()
    last = rng.choice(part(LAST, split)) if rng.random() < 0.4 else invented(rng, split).capitalize()
    return f"{first} {last}"
