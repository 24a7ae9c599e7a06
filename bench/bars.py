"""What is demanded of slabcache, and whether it holds. A ratio is below 1 where slabcache is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from measuring import pages

from .peers import INSTALLED, PEERS
from .results import Figure, Results, Subject
from .sizes import HUGE, LARGE, SMALL

#: Of which the fastest is what an evicting write is compared with.
FASTEST: list[str] = [
    name
    for name in ("lru_dict", "cachebox", "moka", "theine", "cachetools", "ordered_dict")
    if name in INSTALLED
]

#: The figure, if it was measured, and what is known only then about that which it is compared with.
Finding = tuple[Figure | None, str]


def slabcache(test: str, entries: int) -> Subject:
    return Subject(test, "slabcache", entries)


def versus(ours: Subject, test: str = "", name: str = "slabcache") -> Callable[[Results], Finding]:
    """Our time as a ratio to that of another test, another name, or both, at the same size."""
    other = ours._replace(test=test or ours.test, name=name)
    return lambda results: (results.ratio(ours, other), "")


def versus_fastest_peer(results: Results) -> Finding:
    ours = slabcache("evicting_write", LARGE)
    fastest = results.fastest(ours.test, LARGE, FASTEST)
    if not fastest:
        return None, ""
    return results.ratio(ours, ours._replace(name=fastest[0])), f": {PEERS[fastest[0]].label}"


def growth(test: str, yardstick: str, name: str) -> Callable[[Results], Finding]:
    """The factor by which the cost grows from the smallest cache to the largest, as a ratio to memory's."""

    def measure(results: Results) -> Finding:
        subjects = slabcache(test, HUGE), Subject(yardstick, name, HUGE)
        ours, memory = (results.ratio(subject, subject._replace(entries=SMALL)) for subject in subjects)
        if ours is None or memory is None:
            return None, ""
        ratio = Figure(ours.value / memory.value, ours.low / memory.high, ours.high / memory.low)
        return ratio, f": grows {memory.value:.1f} times, ours {ours.value:.1f} times"

    return measure


def milliseconds(ours: Subject) -> Callable[[Results], Finding]:
    return lambda results: (results.ns(ours, unit=1e6), "")


def fact(ours: Subject, what: str, unit: float = 1) -> Callable[[Results], Finding]:
    return lambda results: (results.fact(ours, what, unit), "")


@dataclass(frozen=True)
class Bar:
    """One demand: at most `bar`, better `aim`."""

    what: str
    against: str
    bar: float
    aim: float | None
    measure: Callable[[Results], Finding]

    def verdict(self, figure: Figure | None) -> str:
        return "not measured" if figure is None else verdict(figure.value, self.bar, self.aim)


def verdict(figure: float, bar: float | None, aim: float | None) -> str:
    """In the words that all tables use. Either limit may be missing."""
    if aim is not None and figure <= aim:
        return "aim met"
    if bar is None:
        return "aim not met"
    return "bar met" if figure <= bar else "**not met**"


DEPENDENT = "dependent_read", "dependent read"
INDEPENDENT = "take", "numpy.take"
HIT, GET, PUT = "`cache[a, b]`", "`get_many` of 4,096 rows", "evicting `put_many` of 4,096 rows"
TAKE = "`numpy.take` of 48-byte rows"

BARS = (
    Bar(
        f"{HIT}, 1,000 entries, the dict's own key objects",
        "`dict[a, b]`",
        1.05,
        0.90,
        versus(slabcache("hit_by_same_objects", SMALL), name="dict"),
    ),
    Bar(
        f"{HIT}, 1,000 entries, fresh key objects",
        "`dict[a, b]`",
        1.05,
        0.90,
        versus(slabcache("hit", SMALL), name="dict"),
    ),
    Bar(
        f"{HIT}, 1 M entries, fresh key objects",
        "`dict[a, b]`",
        0.65,
        0.50,
        versus(slabcache("hit", LARGE), name="dict"),
    ),
    Bar(
        "`cache[a]`, key u8, 1,000 entries",
        "`dict[a]`",
        1.6,
        1.2,
        versus(slabcache("hit_of_u8_key", SMALL), name="dict"),
    ),
    Bar("evicting `cache[a, b] = value`, 1 M entries", "fastest peer", 0.40, 0.25, versus_fastest_peer),
    Bar(f"{GET}, 1 M entries", TAKE, 2.5, 1.8, versus(slabcache("get_many", LARGE), "take", "numpy.take")),
    Bar(f"{GET}, 10 M entries", TAKE, 2.9, 1.8, versus(slabcache("get_many", HUGE), "take", "numpy.take")),
    Bar(
        f"{PUT}, 1 M entries",
        TAKE,
        2.4,
        1.8,
        versus(slabcache("put_many_evicting", LARGE), "take_among_evictions", "numpy.take"),
    ),
    Bar(
        f"{PUT}, 10 M entries",
        TAKE,
        2.9,
        1.8,
        versus(slabcache("put_many_evicting", HUGE), "take_among_evictions", "numpy.take"),
    ),
    Bar(
        "`get_many` of 16 rows, 1,000 entries",
        f"16 {HIT}",
        0.5,
        0.3,
        versus(slabcache("few_rows", SMALL), "scalar_calls"),
    ),
    Bar(
        "`get_many` of 16 rows, 1 M entries",
        f"16 {HIT}",
        0.5,
        0.3,
        versus(slabcache("few_rows", LARGE), "scalar_calls"),
    ),
    Bar(
        "bytes an entry, 1 M entries",
        "36 of data",
        57,
        52,
        fact(slabcache("footprint", LARGE), "entry_bytes"),
    ),
    Bar(
        "bytes an entry, 10 M entries",
        "36 of data",
        57,
        52,
        fact(slabcache("footprint", HUGE), "entry_bytes"),
    ),
    Bar(
        "`resize` to double, 1 M entries",
        "refill by `put_many`",
        1.0,
        0.5,
        versus(slabcache("resize", LARGE), "refill"),
    ),
    Bar("construction, 10 M entries, ms", "", 50, None, milliseconds(slabcache("construction", HUGE))),
    Bar(
        "resident before any write, 10 M entries, MB",
        "",
        5,
        None,
        fact(slabcache("resident_of_new", HUGE), "resident_bytes", 1e6),
    ),
    Bar(f"growth from 1,000 to 10 M entries, {HIT}", "dependent read", 1, None, growth("hit", *DEPENDENT)),
    Bar(
        "growth, evicting `cache[a, b] = value`",
        "dependent read",
        1,
        None,
        growth("evicting_write", *DEPENDENT),
    ),
    Bar(f"growth, {GET}", TAKE, 1, None, growth("get_many", *INDEPENDENT)),
    Bar(f"growth, {PUT}", TAKE, 1, None, growth("put_many_evicting", *INDEPENDENT)),
    Bar(
        "collector's time under a service's requests, 10 M entries",
        "the same without a cache",
        1.1,
        None,
        fact(slabcache("collector", HUGE), "ratio"),
    ),
    Bar(
        "the same",
        "as many visits to memory, without a cache",
        1.1,
        None,
        fact(slabcache("collector", HUGE), "ratio_to_memory"),
    ),
    Bar(
        "longest stay in the cache, 10 M entries",
        "longest run of the collector",
        1,
        None,
        fact(slabcache("collector", HUGE), "longest"),
    ),
)


BEHIND = "write_behind"


def _behind(what: str, test: str, bar: float) -> tuple[Bar, Bar]:
    small, large = (
        Bar(
            f"{what}, {entries:,} entries",
            "`SlabCache`",
            bar,
            None,
            versus(Subject(test, BEHIND, entries), name="slabcache"),
        )
        for entries in (SMALL, LARGE)
    )
    return small, large


ABSORBED = "while a store takes 2 ms a batch, 1 M entries"
STORE = Subject("store_rows", "sqlite", LARGE)

#: Of the cache in front of a store, all of its entries in memory, and of the store.
BARS_BEHIND = (
    *_behind(HIT, "behind_hit", 1.3),
    *_behind(GET, "behind_get_many", 1.2),
    *_behind("`cache[a, b] = value`", "behind_write", 1.5),
    *_behind("`put_many` of 4,096 rows", "behind_put_many", 1.5),
    Bar(
        f"increments by `increment_many` {ABSORBED}, ns each",
        "1 M a second",
        1000,
        None,
        fact(Subject("absorbed", "increment_many", LARGE), "increment_ns"),
    ),
    Bar(
        f"increments one by one {ABSORBED}, ns each",
        "1 M a second",
        1000,
        None,
        fact(Subject("absorbed", "increment", LARGE), "increment_ns"),
    ),
    Bar(
        "`SQLiteStore`, 1,000 rows a call of random keys that are there, us a row",
        "200,000 a second",
        5,
        None,
        fact(STORE, "changed_us"),
    ),
    Bar("`SQLiteStore`, the same, new rows", "200,000 a second", 5, None, fact(STORE, "new_us")),
    Bar(
        "`SQLiteStore`, the same, new rows whose keys ascend",
        "200,000 a second",
        5,
        None,
        fact(STORE, "ascending_us"),
    ),
)


def table(results: Results, demands: Iterable[Bar] = BARS) -> list[str]:
    """The lines of a table in Markdown."""
    rows = []
    for bar in demands:
        figure, found = bar.measure(results)
        cells = [bar.what, bar.against + found]
        cells += (
            ["-", "-"]
            if figure is None
            else [number(figure.value), f"{number(figure.low)}-{number(figure.high)}"]
        )
        cells += [number(bar.bar), "" if bar.aim is None else number(bar.aim), bar.verdict(figure)]
        rows.append(cells)
    header = ["what", "against", "figure", "of the passes", "bar", "aim", "verdict"]
    return pages.table(header, rows, words=(0, 1, 6))


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
