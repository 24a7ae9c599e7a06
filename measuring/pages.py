"""Tables in Markdown, and their places on a page: ``<!-- NAME begin -->`` to ``<!-- NAME end -->``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = ["fill", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> list[str]:
    """The lines of a table; `words` are the numbers of the columns that are no figures."""
    rule = [":---" if number in words else "---:" for number in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def fill(page: str, places: Mapping[str, Sequence[str]]) -> str:
    """The page with its places filled, by their names; those of which nothing is known stay as they are."""

    def place(match: re.Match[str]) -> str:
        if match["name"] not in places:
            return match[0]
        return "\n".join([match["begin"], *places[match["name"]], match["end"]])

    pattern = r"(?P<begin><!-- (?P<name>[\w: -]+) begin -->)\n.*?(?P<end><!-- (?P=name) end -->)"
    return re.sub(pattern, place, page, flags=re.DOTALL)
