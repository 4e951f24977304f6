"""Mutations of cores: each a function from a source of chance and the places to splices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from .places import Field, Places, places_of
from .recipe import DEBUG, FIXTURES, Recipe, Splice, base_bytes, packed
from .traces import trace_recipe

Mutation = Callable[[Random, Places], "list[Splice]"]
SMALL = sorted(  # cores of less than 1.2 MB: most targets are made of these
    f"cores/{path.name[: -len('.xz')]}"
    for path in (FIXTURES / "cores").glob("*.core.xz")
    if path.stat().st_size < 25000 and "mmapped" not in path.name and "freed" not in path.name
)
LARGE = sorted(
    f"cores/{path.name[: -len('.xz')]}"
    for path in (FIXTURES / "cores").glob("*.core.xz")
    if f"cores/{path.name[: -len('.xz')]}" not in SMALL
)
STEERING = (  # what a terminal, a browser or a reader of lines would obey
    b"\x1b]0;owned\x07\x1b[2J",
    b"\x9b31m\x9d",
    "\u202e\u2066\u200b\u2028\u2029\ufeff\x85".encode(),
    b"<script>alert(1)</script>&\"'",
    b"\xff\xfe\xed\xa0\x80\xc0\x80\r\n\t\x08",
)


def number(value: int, size: int, order: str) -> bytes:
    """Return a number as the target stores it, cut to its size."""
    return (value % (1 << 8 * size)).to_bytes(size, "little" if order == "little" else "big")


def wild(random: Random, old: int, field: Field, places: Places) -> int:
    """Return a value that is likely to hurt where *old* was."""
    bits = 8 * field.size
    top = 1 << bits
    near = random.choice(places.addresses or (0x1000,))
    return random.choice(
        (
            0,
            1,
            top - 1,
            top - random.randrange(1, 64),
            top >> 1,
            (top >> 1) - random.randrange(64),
            old ^ 1 << random.randrange(bits),
            old + random.choice((-16, -8, -1, 1, 2, 4, 8, 16, 4096)),
            old & -4096,
            old * 2,
            random.getrandbits(bits),
            random.getrandbits(random.randrange(1, bits)),
            near,
            near + random.choice((1, places.word, 2 * places.word, 16, -16)),
            near ^ near >> 12,
            1 << random.randrange(bits),
        )
    )


def put(random: Random, places: Places, field: Field, value: int | None = None) -> Splice:
    """Return a splice that overwrites a field."""
    data = base_bytes(places.base)
    old = int.from_bytes(data[field.at : field.at + field.size], places.order)
    new = wild(random, old, field, places) if value is None else value
    return Splice(field.at, field.size, number(new, field.size, places.order).hex())


def fields_of_one_kind(random: Random, places: Places) -> list[Splice]:
    """Overwrite some fields of one kind of structure."""
    kind = random.choice(sorted(places.fields))
    count = random.choice((1, 1, 1, 2, 3, 8))
    return [put(random, places, random.choice(places.fields[kind])) for _ in range(count)]


def fields_of_any_kind(random: Random, places: Places) -> list[Splice]:
    """Overwrite fields all over."""
    kinds = [random.choice(sorted(places.fields)) for _ in range(random.randrange(2, 12))]
    return [put(random, places, random.choice(places.fields[kind])) for kind in kinds]


def self_links(random: Random, places: Places) -> list[Splice]:
    """Let words point to where they stand, or to a neighbour: loops of any length."""
    made: list[Splice] = []
    for _ in range(random.choice((1, 2, 8, 32))):
        chunk, at = random.choice(places.chunks)
        aim = random.choice((chunk, chunk + 2 * places.word, random.choice(places.addresses)))
        for number_ in range(2, 2 + random.randrange(1, 5)):
            where = Field(at + number_ * places.word, places.word)
            made.append(put(random, places, where, aim))
    return made


def repeated_word(random: Random, places: Places) -> list[Splice]:
    """Fill a range with one word: a size, a pointer into itself, a text."""
    chunk, at = random.choice(places.chunks)
    length = random.choice((8, 64, 512, 4096, 65536))
    words = (0x21, 0x11, 0x1, chunk, chunk + 16, 0x4141414141414141, 1 << 63, 0x1000, 0x23)
    value = number(random.choice(words), places.word, places.order)
    times = max(1, min(length, places.size - at) // places.word)
    return [Splice(at, times * places.word, value.hex(), times)]


def noise(random: Random, places: Places) -> list[Splice]:
    """Overwrite bytes of the head of the file, or anywhere, with chance."""
    high = random.choice((64, 4096, places.size))
    made = []
    for _ in range(random.choice((1, 4, 64))):
        at = random.randrange(min(high, places.size))
        size = min(random.choice((1, 4, 64)), places.size - at)
        made.append(Splice(at, size, random.randbytes(size).hex()))
    return made


def copied_page(random: Random, places: Places) -> list[Splice]:
    """Put a copy of one structure where another one is."""
    data = base_bytes(places.base)
    kinds = random.choice(sorted(places.fields)), random.choice(sorted(places.fields))
    source, aim = (random.choice(places.fields[kind]).at for kind in kinds)
    size = min(random.choice((16, 64, 2048, 4096)), places.size - max(source, aim))
    return [Splice(aim, size, data[source : source + size].hex())]


def steering_text(random: Random, places: Places) -> list[Splice]:
    """Put what steers terminals into paths (NT_FILE), names, notes and what chunks hold."""
    data, text = base_bytes(places.base), random.choice(STEERING)
    made = []
    at = data.find(b"/", 64)
    while 0 <= at < 16384 and len(made) < 40:
        made.append(Splice(at + 1, len(text), text.hex()))
        at = data.find(b"/", at + len(text) + 1)
    for _ in range(8):
        _chunk, where = random.choice(places.chunks)
        made.append(Splice(where + 2 * places.word, len(text), text.hex()))
    return [one for one in made if one.at + one.removed <= places.size]


def moved_bytes(random: Random, places: Places) -> list[Splice]:
    """Insert or take out bytes: everything behind is displaced."""
    at = random.choice(places.borders)
    if random.random() < 0.5:
        return [Splice(at, 0, random.randbytes(random.choice((1, 8, 4096))).hex())]
    return [Splice(at, random.choice((1, 8, 64, 4096)), "")]


MUTATIONS: tuple[tuple[int, Mutation], ...] = (
    (8, fields_of_one_kind),
    (4, fields_of_any_kind),
    (3, self_links),
    (2, repeated_word),
    (2, noise),
    (2, copied_page),
    (1, steering_text),
    (1, moved_bytes),
)


def said_release(random: Random, base: str) -> str:
    """Return the release that the user names: mostly the right one, or none."""
    own = base.split("/")[1].split("-")[0]
    return random.choice(("", "", own, own, own, random.choice(("2.23", "2.31", "2.44"))))


def core_recipe(random: Random) -> Recipe:
    """Return a mutated core."""
    base = random.choice(SMALL if random.random() < 0.85 else LARGE)
    places = places_of(base)
    weights = [weight for weight, _ in MUTATIONS]
    chosen = random.choices([one for _, one in MUTATIONS], weights, k=random.choice((1, 1, 1, 2)))
    splices = [splice for one in chosen for splice in one(random, places)]
    kinds = tuple(one.__name__ for one in chosen)
    return Recipe(
        base,
        tuple(splices),
        symbols=random.random() < 0.5,
        glibc=said_release(random, base),
        kinds=kinds,
        address=random.choice(places.addresses),
    )


def cut_recipe(random: Random) -> Recipe:
    """Return a core that ends at a border, or beside one."""
    base = random.choice(SMALL if random.random() < 0.85 else LARGE)
    places = places_of(base)
    cut = max(0, random.choice(places.borders) + random.choice((-1, 0, 1, 7, 100)))
    if random.random() < 0.2:
        cut = random.randrange(places.size)
    address = random.choice(places.addresses)
    symbols = random.random() < 0.5
    return Recipe(base, cut=cut, symbols=symbols, kinds=("cut",), address=address)


def packed_recipe(random: Random) -> Recipe:
    """Return a core in a compressed stream that is damaged."""
    base = random.choice(SMALL)
    recipe = replace(cut_recipe(random), base=base, cut=random.choice((None, None, 40960)))
    kind = random.choice(("gz", "xz", "zst", "lz4"))
    size = len(packed(base_bytes(base)[: recipe.cut], kind))
    splices = []
    for _ in range(random.choice((0, 1, 1, 4))):
        at = random.randrange(min(size, random.choice((32, 4096, size))))
        splices.append(Splice(at, random.choice((0, 1, 4)), random.randbytes(4).hex()))
    cut = random.choice((None, None, random.randrange(size), random.randrange(64)))
    return replace(
        recipe, pack=kind, packed_splices=tuple(splices), packed_cut=cut, kinds=("packed",)
    )


def debug_recipe(random: Random) -> Recipe:
    """Return a core whose debug file is damaged: header, section table, symbols."""
    base = random.choice(SMALL)
    places = places_of(base)
    data = (DEBUG / places.debug_file).read_bytes()
    splices = []
    for _ in range(random.choice((1, 1, 2, 6))):
        size = random.choice((1, 2, 4, 8))
        low = random.choice((0, 40, len(data) // 2, max(0, len(data) - 400)))
        at = random.randrange(low, len(data) - size) // size * size
        field = Field(at, size)
        old = int.from_bytes(data[at : at + size], places.order)
        new = wild(random, old, field, places)
        splices.append(Splice(at, size, number(new, size, places.order).hex()))
    cut = random.choice((None, None, None, random.randrange(len(data))))
    return Recipe(
        base,
        debug_file=places.debug_file,
        debug_splices=tuple(splices),
        debug_cut=cut,
        glibc=said_release(random, base),
        kinds=("debug",),
        address=random.choice(places.addresses),
    )


def recipes(seed: int, count: int) -> Iterator[Recipe]:
    """Yield targets of all kinds; the same for the same seed."""
    makers: tuple[tuple[int, Callable[[Random], Recipe]], ...] = (
        (70, core_recipe),
        (8, cut_recipe),
        (5, packed_recipe),
        (7, debug_recipe),
        (10, trace_recipe),
    )
    random = Random(seed)
    weights = [weight for weight, _ in makers]
    chosen = random.choices([one for _, one in makers], weights, k=count)
    return (maker(random) for maker in chosen)
