"""What is demanded of slabcache, and whether it holds. All ratios are of times, below 1 where slabcache is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .peers import EVICTING, PEERS
from .results import Ratio, Results, Subject
from .sizes import HUGE, LARGE, SMALL

#: Of which the fastest is what an evicting write is compared with.
RIVALS = ("lru_dict", "cachebox", "moka", "theine", "cachetools", "ordered_dict")
DATA_BYTES = 36  # of key and value


@dataclass(frozen=True)
class Bar:
    """One demand. `measure` gives the figure and, where it is known only then, what it was compared with."""

    what: str
    against: str
    bar: float
    aim: float | None
    measure: Callable[[Results], tuple[Ratio | None, str]]


def between(one: Subject, other: Subject) -> Callable[[Results], tuple[Ratio | None, str]]:
    return lambda results: (results.ratio(one, other), "")


def against_fastest_rival(results: Results) -> tuple[Ratio | None, str]:
    ours = Subject("evicting_write", "slabcache", LARGE)
    fastest = results.fastest(ours.test, LARGE, [name for name in RIVALS if name in EVICTING])
    if not fastest:
        return None, ""
    return results.ratio(ours, ours._replace(name=fastest[0])), f": {PEERS[fastest[0]].label}"


def growth(test: str, yardstick: Subject) -> Callable[[Results], tuple[Ratio | None, str]]:
    """By what factor the cost grows from the smallest cache to the largest, divided by that of the yardstick."""

    def measure(results: Results) -> tuple[Ratio | None, str]:
        ours = Subject(test, "slabcache", HUGE)
        factors = [results.ratio(subject, subject._replace(entries=SMALL)) for subject in (ours, yardstick)]
        if factors[0] is None or factors[1] is None:
            return None, ""
        mine, memory = factors[0], factors[1]
        quotient = Ratio(mine.value / memory.value, mine.low / memory.high, mine.high / memory.low)
        return quotient, f": {mine.value:.1f} times against {memory.value:.1f} times"

    return measure


def fact(subject: Subject, what: str, unit: float) -> Callable[[Results], tuple[Ratio | None, str]]:
    def measure(results: Results) -> tuple[Ratio | None, str]:
        value = results.fact(subject, what)
        return (None if value is None else Ratio(value / unit, value / unit, value / unit)), ""

    return measure


def construction_ms(results: Results) -> tuple[Ratio | None, str]:
    value = results.ns(Subject("construction", "slabcache", HUGE))
    return (None if value is None else Ratio(value / 1e6, value / 1e6, value / 1e6)), ""


def bars() -> Iterator[Bar]:
    """All of them, in the order of the table."""
    for entries, bar, aim in ((SMALL, 1.05, 0.90), (LARGE, 0.65, 0.50)):
        ours = Subject("hit", "slabcache", entries)
        yield Bar(
            f"hit, {entries:,} entries", "dict[a, b]", bar, aim, between(ours, ours._replace(name="dict"))
        )
    ours = Subject("hit_of_u8_key", "slabcache", SMALL)
    yield Bar(
        "hit of a u8 key, 1,000 entries", "dict[a]", 1.6, 1.2, between(ours, ours._replace(name="dict"))
    )
    yield Bar("evicting write, 1,000,000 entries", "fastest rival", 0.40, 0.25, against_fastest_rival)
    for call, test, demands in (
        ("get_many", "get_many", ((LARGE, 2.5), (HUGE, 2.9))),
        ("evicting put_many", "put_many_evicting", ((LARGE, 2.4), (HUGE, 2.9))),
    ):
        for entries, bar in demands:
            yield Bar(
                f"{call} of 4,096 rows, {entries:,} entries",
                "numpy.take",
                bar,
                1.8,
                between(Subject(test, "slabcache", entries), Subject("take", "numpy.take", entries)),
            )
    for entries in (SMALL, LARGE):
        few, hit = (Subject(test, "slabcache", entries) for test in ("few_rows", "hit"))
        yield Bar(f"get_many of 16 rows, {entries:,} entries", "16 scalar hits", 0.5, 0.3, between(few, hit))
    for entries in (LARGE, HUGE):
        entry = fact(Subject("footprint", "slabcache", entries), "entry_bytes", 1)
        yield Bar(
            f"bytes an entry, {entries:,} entries", "36 of data", DATA_BYTES + 21, DATA_BYTES + 16, entry
        )
    resize, refill = Subject("resize", "slabcache", LARGE), Subject("refill", "refill", LARGE)
    yield Bar("resize to double, 1,000,000 entries", "refill by put_many", 1.0, 0.5, between(resize, refill))
    yield Bar("construction, 10,000,000 entries, ms", "", 50, None, construction_ms)
    resident = fact(Subject("resident_of_new", "slabcache", HUGE), "resident_bytes", 1e6)
    yield Bar("resident before any write, MB", "", 5, None, resident)
    for label, test, yardstick in (
        ("hit", "hit", Subject("dependent_read", "dependent read", HUGE)),
        ("evicting write", "evicting_write", Subject("dependent_read", "dependent read", HUGE)),
        ("get_many", "get_many", Subject("take", "numpy.take", HUGE)),
        ("evicting put_many", "put_many_evicting", Subject("take", "numpy.take", HUGE)),
    ):
        yield Bar(
            f"growth from 1,000 to 10,000,000 entries, {label}",
            yardstick.name,
            1.0,
            None,
            growth(test, yardstick),
        )


def verdict(bar: Bar, ratio: Ratio | None) -> str:
    if ratio is None:
        return "not measured"
    if bar.aim is not None and ratio.value <= bar.aim:
        return "aim met"
    return "met" if ratio.value <= bar.bar else "**not met**"


def table(results: Results) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [
        "| what | against | ratio | of the passes | bar | aim | |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | :--- |",
    ]
    for bar in bars():
        ratio, found = bar.measure(results)
        figures = (
            ("-", "-")
            if ratio is None
            else (number(ratio.value), f"{number(ratio.low)}-{number(ratio.high)}")
        )
        aim = "" if bar.aim is None else number(bar.aim)
        cells = bar.what, bar.against + found, *figures, number(bar.bar), aim, verdict(bar, ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
