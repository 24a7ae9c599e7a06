"""One word for each thing: the list in docs/index.md and the types of the core are the same."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "src" / "slabcache"

# Names that have been given up: a word that meant two things, or a second word for one.
GIVEN_UP = [
    *("batch_t", "place_t", "view_of", "STORED_FRESH", "slab_get", "checked_capacity", "leave_list"),
    "scratch_data",
]


def words() -> set[str]:
    """The words of the list, singular."""
    page = (ROOT / "docs" / "index.md").read_text()
    table = page[page.index("## Words") : page.index("## Claims")]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[2:]
    return {word.strip() for cell in cells for word in cell.split(",")}


def code() -> dict[Path, str]:
    files = [path for path in HOUSE.rglob("*.*") if path.suffix in (".pxd", ".pyx", ".h", ".py")]
    return {path: path.read_text() for path in files}


def test_each_type_of_the_core_is_in_the_list() -> None:
    types = {
        name
        for path, text in code().items()
        if path.suffix in (".pxd", ".pyx")
        for name in re.findall(r"^(?:cdef|ctypedef|    ctypedef).*?\b(\w+)_t(?::|\n|  )", text, re.MULTILINE)
    }
    assert len(types) > 30
    known = {word.replace(" ", "_") for word in words()} | {"ring_link", "mark_number"}
    assert types <= known


def test_names_that_were_given_up_stay_away() -> None:
    for path, text in code().items():
        for name in GIVEN_UP:
            assert name not in text, f"{path.name}: {name}"


def test_the_list_has_each_word_once() -> None:
    assert len(words()) > 60
    page = (ROOT / "docs" / "index.md").read_text()
    for word in words():
        assert len(re.findall(rf"^\| {re.escape(word)}[ ,|]", page, re.MULTILINE)) <= 1, word
