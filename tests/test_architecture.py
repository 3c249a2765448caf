"""The rules of docs/architecture.md that a parser can check: arrows, quiet rooms, small modules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "clustersh"
MODULES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = ("frontend", "coordinator", "agent")
MAX_LINES = 350

SHARED_BELOW: dict[str, tuple[str, ...]] = {
    "wire": ("wire",),
    "trust": ("trust", "wire", "home"),
    "probe": ("probe", "wire"),
    "home": (),
    "config": ("wire", "address"),
    "address": (),
}
"""What these rooms may import of clustersh; the other shared rooms just stay out of the programs."""

NO_IO = {
    *("asyncio", "glob", "http", "io", "multiprocessing", "os", "pathlib", "shutil", "signal", "socket", "sqlite3"),
    *("ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib"),
    *("autobahn", "OpenSSL", "treq", "twisted"),
}
NO_SOCKETS = {
    *("asyncio", "http", "select", "selectors", "socket", "socketserver", "subprocess", "urllib.request"),
    *("autobahn", "treq", "twisted.internet.protocol", "twisted.internet.tcp", "twisted.internet.endpoints"),
    *("twisted.internet.reactor", "twisted.web.client", "twisted.web.server"),
}


@cache
def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module's full name, such as ``wire`` for ``clustersh.wire.ids``; "" for the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that *path* imports, inside functions too; of ``from a import b`` a.b."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (
                ".".join([*base, *(node.module or "").split("."), alias.name]).replace("..", ".")
                for alias in node.names
            )


def within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def in_rooms(*rooms: str) -> list[Path]:
    return [path for path in MODULES if room(name_of(path)) in rooms]


@pytest.mark.parametrize("path", in_rooms(*PROGRAMS), ids=name_of)
def test_the_programs_never_import_each_other(path: Path) -> None:
    others = set(PROGRAMS) - {room(name_of(path))}
    assert [found for found in imports(path) if found.startswith("clustersh.") and room(found) in others] == []


@pytest.mark.parametrize("path", [path for path in MODULES if room(name_of(path)) not in PROGRAMS], ids=name_of)
def test_shared_rooms_know_nothing_of_the_programs(path: Path) -> None:
    assert [found for found in imports(path) if found.startswith("clustersh.") and room(found) in PROGRAMS] == []


@pytest.mark.parametrize("path", in_rooms(*SHARED_BELOW), ids=name_of)
def test_the_lowest_rooms_import_only_what_is_below(path: Path) -> None:
    allowed = SHARED_BELOW[room(name_of(path))]
    of_ours = [found for found in imports(path) if found.startswith("clustersh.")]
    assert [found for found in of_ours if room(found) not in allowed] == []


@pytest.mark.parametrize("path", in_rooms("wire"), ids=name_of)
def test_wire_does_no_io_and_knows_no_twisted(path: Path) -> None:
    assert [found for found in imports(path) if within(found, NO_IO)] == []
    assert calls(path) & {"open", "print", "input"} == set()


@pytest.mark.parametrize("path", in_rooms("probe"), ids=name_of)
def test_the_probe_could_be_carried_to_where_no_clustersh_is(path: Path) -> None:
    ours = {"clustersh.probe", "clustersh.wire.units", "psutil"}
    found = [name for name in imports(path) if name.split(".")[0] not in sys.stdlib_module_names]
    assert [name for name in found if not within(name, ours)] == []


@pytest.mark.parametrize("path", in_rooms("trust"), ids=name_of)
def test_trust_has_no_sockets(path: Path) -> None:
    assert [found for found in imports(path) if within(found, NO_SOCKETS)] == []


@pytest.mark.parametrize("path", in_rooms("frontend"), ids=name_of)
def test_the_frontend_writes_and_reads_only_through_its_invocation(path: Path) -> None:
    if path.name == "main.py":  # it makes the Invocation of the process's own streams
        return
    assert calls(path) & {"print", "input"} == set()
    touched = attributes(path) & {"sys.stdout", "sys.stderr", "sys.stdin", "sys.argv", "os.environ", "os.getcwd"}
    assert touched == set()


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.stem not in ("main", "plugin", "program")], ids=name_of
)
def test_no_global_reactor_in_logic(path: Path) -> None:
    assert "twisted.internet.reactor" not in set(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it"


def calls(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.func.id for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def attributes(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = (node for node in tree if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return {f"{node.value.id}.{node.attr}" for node in found if isinstance(node.value, ast.Name)}
