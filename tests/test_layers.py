"""The house is built in layers: nothing imports from above, and no two files import each other."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

HOUSE = Path(__file__).parent.parent / "src" / "slabcache"

# From the ground up: rooms, and single files at the top. Each may import from itself and from below.
LAYERS = [
    {"errors", "stats", "arguments"},
    {"machine"},
    {"arena"},
    {"behind.arena"},
    {"codec"},
    {"_base", "_core", "_batch"},
    {"stores"},
    {"behind"},
    {"mapping", "pickles", "cache", "write_behind", "prometheus"},
    {"", "_structures"},
]
IMPORT = re.compile(r"^\s*from (slabcache[\w.]*) c?import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def modules() -> dict[str, str]:
    """The text of each module below `slabcache`: that of all files of its name."""
    texts: dict[str, str] = {}
    for path in sorted(HOUSE.rglob("*.p*")):
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi"):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            texts[name] = texts.get(name, "") + code_of(path) + "\n"
    return texts


def code_of(path: Path) -> str:
    """What is no docstring."""
    return re.sub(r'"""[\s\S]*?"""', "", path.read_text())


def imports(text: str, names: set[str]) -> set[str]:
    """The modules below `slabcache` that a text imports from."""
    found = set()
    for source, items in IMPORT.findall(text):
        room = source.removeprefix("slabcache").lstrip(".")
        inside = {f"{room}.{item}".lstrip(".") for item in re.findall(r"\w+", items)} & names
        found |= inside or {room}
    return found


def layer_of(module: str) -> int:
    """The number of its layer: that of the innermost room which has one."""
    name = module
    while True:
        for number, rooms in enumerate(LAYERS):
            if name in rooms:
                return number
        assert name, f"{module} is in no layer"
        name = name.rpartition(".")[0]


def test_nothing_imports_from_above() -> None:
    texts = modules()
    for module, text in texts.items():
        for other in imports(text, set(texts)):
            assert layer_of(other) <= layer_of(module), f"{module} imports {other}"


def test_no_two_files_import_each_other() -> None:
    texts = modules()
    graph = {module: imports(text, set(texts)) - {module} for module, text in texts.items()}
    assert "behind.flusher" in TopologicalSorter(graph).static_order()


def test_bytes_are_changed_without_python() -> None:
    """What lies in an arena is changed by functions that need no GIL, allocate nothing and cannot fail."""
    files = [*HOUSE.glob("arena/*.pxd"), *HOUSE.glob("behind/arena/*.pxd")]
    assert len(files) > 12
    for path in files:
        text = code_of(path)
        functions = re.findall(r"^cdef inline [^:]*?\)([^:()]*):$", text, re.MULTILINE)
        assert set(functions) <= {" noexcept nogil"}, path
        python = r"^(def|class|cdef class|import) |\bobject\b|[cm]alloc\("
        assert not re.search(python, text, re.MULTILINE), path
