"""The page: one file of HTML that opens anywhere, with nothing to fetch."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from measuring.formats import duration
from read_states.load.histograms import add_up, percentile
from read_states.load.population import CHANNELS, GUILD, SKEW
from read_states.load.results import Results, ServiceRun
from read_states.load.schedule import MIX, Kind
from read_states.report.figures import (
    SLAB,
    STALL,
    TWIN,
    Bar,
    bars,
    collecting,
    count,
    fan_out_chances,
    hit_ratio,
    latency,
    longest_pause,
    of_turns,
)
from read_states.report.pictures import NAMES, draw_all

__all__ = ["make_page", "write_report"]

TEMPLATE = Path(__file__).with_name("page.html")
WIDTH = 110  # of a terminal
MEANT = 1_000_000  # records, at least, for which the bars are
TAKEN = 0.05  # share of the time; from here on the machine's other work is in the figures
LAG = 5_000_000  # nanoseconds; the same for the generator's p99
Figure = Callable[[ServiceRun], str]

WHAT = {
    Kind.READ: "read a channel",
    Kind.ACK: "ack",
    Kind.PIN: "pin",
    Kind.BATCH: "open a session: 50 or 100 channels in one call",
    Kind.MENTION: f"mention a guild of {GUILD}",
    Kind.CALL: "open a session: one of 50 or 100 calls",
}


def write_report(results: Results, path: Path) -> str:
    """Write the page; what is worth saying on a terminal."""
    path.write_text(make_page(results), encoding="utf-8")
    lines = [f"{bar.verdict:7} {bar.demand}: {bar.outcome}; {bar.beside}" for bar in bars(results)]
    lines += [f"CAUTION {caution}" for caution in cautions(results)]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent=" " * 8) for line in lines)


def make_page(results: Results) -> str:
    slab, twin = results.services[SLAB], results.services[TWIN]
    conditions = results.conditions
    slow, twin_slow = (duration(percentile(latency(run), 99.9)) for run in (slab, twin))
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"One answer in a thousand takes {twin_slow} and more with a cache of Python objects, "
        f"{slow} with slabcache",
        subtitle=escape(
            f"{conditions.capacity:,} records in memory, {len(slab.timeline)} seconds of the same "
            f"{conditions.requests:,} requests to each service; Python, HTTP, JSON, SQLite behind the cache"
        ),
        cautions="".join(f"<p class=caution>{escape(caution)}</p>" for caution in cautions(results)),
        headlines="".join(_headline(*headline) for headline in headlines(results)),
        bars="".join(_bar_row(bar) for bar in bars(results)),
        latencies=_table(
            ("", "requests", "median", "p99", "p99.9", "maximum"),
            [row for name in (SLAB, TWIN) for row in _latency_rows(results.services[name], NAMES[name])],
        ),
        fan_outs=_table(
            (
                "",
                "calls",
                "fan-outs",
                "slowest is beyond a call's p99",
                "1 - 0.99ⁿ",
                f"slowest over {duration(STALL)}",
                "the same, each call to another instance",
                "median of the slowest",
            ),
            [row for name in (SLAB, TWIN) for row in _fan_out_rows(results.services[name], NAMES[name])],
        ),
        service=_table(("under load", NAMES[SLAB], NAMES[TWIN]), _service_rows(slab, twin)),
        calls=_table(
            (
                "without HTTP",
                "records",
                "median",
                "p99",
                "p99.9",
                "longest",
                "p99.9, median turn",
                "p99.9 by the clock",
                "collections",
                "longest of them",
                "bytes a record, once read",
                "after the calls",
                "objects to walk",
            ),
            _cache_rows(results),
        ),
        conditions="".join(f"<li>{escape(line)}</li>" for line in conditions_of(results)),
        command=escape(conditions.command),
        **{f"picture_{name}": picture for name, picture in draw_all(results).items()},
    )


def headlines(results: Results) -> Iterable[Sequence[str]]:
    """What it is, that of slabcache, that of the twin."""
    figures: tuple[tuple[str, Figure], ...] = (
        ("p99.9 of a request", lambda run: duration(percentile(latency(run), 99.9))),
        ("longest pause of the collector", lambda run: duration(longest_pause(run))),
        ("requests a second, at most", lambda run: f"{statistics.median(run.throughput):,.0f}"),
    )
    for label, figure in figures:
        yield label, *(figure(results.services[name]) for name in (SLAB, TWIN))
    full, objects = results.caches["full"], results.caches["twin"]
    yield "bytes a record, all included", *(f"{run.growth / run.entries:.1f}" for run in (full, objects))


def cautions(results: Results) -> list[str]:
    """What makes these figures less than they seem."""
    said = []
    if results.conditions.capacity < MEANT:
        said.append(
            f"This is a check that all works: {results.conditions.capacity:,} records and "
            f"{results.conditions.seconds:.0f} seconds say nothing about the bars."
        )
    for name, run in results.services.items():
        service, generator = run.taken
        lag = percentile(add_up([run.lag]), 99)
        if max(service, generator) > TAKEN:
            said.append(
                f"The machine was busy with other work while {NAMES[name]} was under load: the service "
                f"shared {service:.0%} of its core's time with it, the generator {generator:.0%}. "
                "That is in its latency."
            )
        if lag > LAG:
            said.append(f"{NAMES[name]}: one request in a hundred was sent {duration(lag)} late or more.")
        if run.failures:
            said.append(f"{NAMES[name]}: not all requests were answered: {dict(run.failures)}")
        if not count(run, "read_states_gc_pause_seconds_count{2}") and name == TWIN:
            said.append("No full collection fell into the twin's time: it is put off, not made shorter.")
    return said


def conditions_of(results: Results) -> Iterable[str]:
    """What a reader must know to trust the figures."""
    conditions = results.conditions
    services = results.services.values()
    lag = [add_up([run.lag]) for run in services]

    def both(texts: Iterable[str]) -> str:
        return " and ".join(texts)

    yield conditions.machine
    yield conditions.date
    if None not in conditions.cores:
        yield (
            f"Service on core {conditions.cores[0]}, generator on core {conditions.cores[1]}, over loopback. "
            "Under load other work had at least "
            f"{both(f'{run.taken[0]:.1%}' for run in services)} of the services' core and "
            f"{both(f'{run.taken[1]:.1%}' for run in services)} of the generator's."
        )
    yield (
        f"{conditions.users:,} users with {CHANNELS} channels each, shared by guilds of {GUILD}: "
        f"{conditions.records:,} records in the database, one in "
        f"{conditions.records // conditions.capacity} of them in memory. Users and their channels are drawn "
        f"with popularity ~ 1 / rank^{SKEW} (bounded Pareto)."
    )
    yield (
        f"{conditions.rate:,.0f} actions of users a second, at equal distances: "
        + ", ".join(f"{share:.0%} {WHAT[kind]}" for kind, share in MIX.items() if kind is not Kind.CALL)
        + f"; {MIX[Kind.CALL]:.0%} open a session by 50 or 100 single calls, a millisecond apart."
    )
    yield (
        "Before that the cache is filled through the interface: the most active users, the least active of "
        "them first. What is changed is written to the database "
        f"{conditions.flush_interval:.0f} seconds later."
    )
    yield (
        "Open loop: each request is sent when it is due, whether those before it are answered or not, and "
        "its latency counts from then. The generator's own collector is off. It sent "
        f"{both(duration(percentile(late, 50)) for late in lag)} late in the median, "
        f"{both(duration(percentile(late, 99.9)) for late in lag)} at p99.9, which is in the latencies."
    )
    yield (
        "Throughput: closed loop, 16 clients, the same mix; both services are up, and take turns. The median "
        "turn counts."
    )
    yield "Latencies are kept in HDR histograms of two digits, so each is true to one percent."
    yield (
        "Without HTTP: the same operations, called one after another amid the garbage that a service makes; "
        "three processes take turns. Times are the processor's, so other work on the machine is not in them, "
        "but for what it does to caches and memory: for the bar the median of all turns counts. "
        "After each 100 calls a full cache loads 1,000 records never asked for before, and evicts as many. "
        f"What is changed is written {conditions.bare_flush_interval:.0f} second later. "
        "The twin is smaller, as it takes more memory and time to fill."
    )


def _headline(what: str, slab: str, twin: str) -> str:
    return (
        f"<div class=headline><p>{escape(what)}</p><b class=slab>{escape(slab)}</b>"
        f"<b class=twin>{escape(twin)}</b></div>"
    )


def _bar_row(bar: Bar) -> str:
    cells = "".join(f"<td>{escape(text)}</td>" for text in (bar.demand, bar.outcome, bar.beside))
    return f"<tr>{cells}<td class={bar.verdict}>{bar.verdict}</td></tr>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class=figures><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _latency_rows(run: ServiceRun, name: str) -> Iterable[Sequence[str]]:
    for label, kinds in ((name, list(Kind)), *((f"- {WHAT[kind]}", [kind]) for kind in Kind)):
        histogram = latency(run, kinds)
        if histogram.total_count:
            times = (duration(percentile(histogram, percent)) for percent in (50, 99, 99.9, 100))
            yield label, f"{histogram.total_count:,}", *times


def _fan_out_rows(run: ServiceRun, name: str) -> Iterable[Sequence[str]]:
    for chance in fan_out_chances(run):
        yield (
            name,
            f"{chance.calls}",
            f"{chance.fan_outs:,}",
            f"{chance.beyond:.1%}",
            f"{chance.independent:.1%}",
            f"{chance.stalled:.1%}",
            f"{chance.spread:.1%}",
            duration(chance.median),
        )


def _service_rows(slab: ServiceRun, twin: ServiceRun) -> Iterable[Sequence[str]]:
    name = "read_states_gc_pause_seconds_count{%d}"
    figures: tuple[tuple[str, Figure], ...] = (
        ("hit ratio", lambda run: f"{hit_ratio(run.samples[0], run.samples[-1]):.1%}"),
        ("records evicted", lambda run: f"{count(run, 'slabcache_evictions_total'):,.0f}"),
        ("rows written to the database", lambda run: f"{count(run, 'slabcache_flushed_rows_total'):,.0f}"),
        ("collections, not full", lambda run: f"{count(run, name % 0) + count(run, name % 1):,.0f}"),
        ("collections, full", lambda run: f"{count(run, name % 2):,.0f}"),
        ("time in the collector", lambda run: duration(collecting(run))),
        ("its longest pause since the start", lambda run: duration(longest_pause(run))),
        ("resident memory at the end, MB", lambda run: f"{_resident(run) / 1e6:,.0f}"),
        ("fastest and slowest turn, requests a second", _turns),
    )
    for label, figure in figures:
        yield label, figure(slab), figure(twin)


def _resident(run: ServiceRun) -> float:
    return run.samples[-1].metrics.get("process_resident_memory_bytes", 0.0)


def _turns(run: ServiceRun) -> str:
    return f"{max(run.throughput):,.0f}, {min(run.throughput):,.0f}"


def _cache_rows(results: Results) -> Iterable[Sequence[str]]:
    for run in results.caches.values():
        times, sizes = add_up(run.working), (run.filled, run.growth)
        yield (
            run.label,
            f"{run.entries:,}",
            *(duration(percentile(times, percent)) for percent in (50, 99, 99.9, 100)),
            duration(of_turns(run, 99.9)),
            duration(percentile(add_up(run.elapsed), 99.9)),
            f"{len(run.pauses):,}",
            duration(max(run.pauses, default=0)),
            *(f"{size / run.entries:.1f}" if run.label.endswith("full") else "-" for size in sizes),
            f"{run.tracked:,}",
        )
