"""The health table: how each machine does, in as many columns as the terminal has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..cli.tables import natural_width, render_table
from ..cli.text import shortened
from ..wire.rest import Machine
from .machine_status import status

GROUPS_WIDTH = 24
"""Columns that groups may take on a terminal."""
STATUS_WIDTH = 48
"""And why a machine is unreachable."""


class _Column(NamedTuple):
    """*goes* says in which order columns are left out where they don't fit; 0 stays."""

    title: str
    cell: Callable[[Machine, float], str]
    goes: int = 0


def render(machines: Sequence[Machine], now: float, width: int | None) -> str:
    """Return the table, at most *width* columns wide (None: as wide as it is)."""
    some = {"via": any(each.carrier for each in machines), "tailscale": any(each.tailscale for each in machines)}
    columns = [each for each in _COLUMNS if some.get(each.title, True)]
    cells = {each.title: [each.cell(machine, now) for machine in machines] for each in columns}
    if width is not None:
        for title, widest in (("groups", GROUPS_WIDTH), ("status", STATUS_WIDTH)):
            cells[title] = [shortened(cell, widest) for cell in cells[title]]
        columns = _fitting(columns, cells, width)
    titles = [each.title for each in columns]
    rows = list(zip(*(cells[title] for title in titles), strict=True))
    return render_table(titles, rows, width)


def _fitting(columns: list[_Column], cells: dict[str, list[str]], width: int) -> list[_Column]:
    """Return the columns without those that go, until the rest fits."""
    left = list(columns)
    for least in sorted((each for each in columns if each.goes), key=lambda column: column.goes):
        if natural_width([[each.title, *cells[each.title]] for each in left]) <= width:
            break
        left.remove(least)
    return left


def _vital(machine: Machine, figure: float | None) -> str:
    """Return a figure in percent; what an offline machine said once is no news."""
    return "-" if figure is None or machine.status != "online" else f"{figure:.0f}%"


def _cpu(machine: Machine, _: float) -> str:
    return _vital(machine, machine.vitals.cpu if machine.vitals else None)


def _memory(machine: Machine, _: float) -> str:
    return _vital(machine, machine.vitals.memory if machine.vitals else None)


def _disk(machine: Machine, _: float) -> str:
    """Return the fuller of home and root."""
    vitals = machine.vitals
    known = [figure for figure in (vitals.disk_home, vitals.disk_root) if figure is not None] if vitals else []
    return _vital(machine, max(known, default=None))


def _score(machine: Machine, _: float) -> str:
    return "-" if machine.score is None or machine.status != "online" else f"{machine.score:.2f}"


def _jobs(machine: Machine, _: float) -> str:
    return "-" if machine.vitals is None or machine.status != "online" else str(machine.vitals.jobs)


def _latency(machine: Machine, _: float) -> str:
    if machine.latency_ms is None:
        return "-"
    return f"{machine.latency_ms:.1f} ms" if machine.latency_ms < 10 else f"{machine.latency_ms:.0f} ms"


def _tailscale(machine: Machine, _: float) -> str:
    node = machine.tailscale
    if node is None:
        return "-"
    state = "online" if node.online else "offline"
    return f"{state}, {node.path}" if node.path else state


def _via(machine: Machine, _: float) -> str:
    """Return the gateway of a machine that only has SSH."""
    return machine.carrier.machine if machine.carrier else "-"


_COLUMNS = (
    _Column("name", lambda machine, now: machine.name),
    _Column("groups", lambda machine, now: ",".join(machine.groups) or "-", goes=4),
    _Column("status", status),
    _Column("via", _via, goes=3),
    _Column("latency", _latency, goes=3),
    _Column("tailscale", _tailscale, goes=2),
    _Column("score", _score, goes=5),
    _Column("cpu", _cpu, goes=9),
    _Column("memory", _memory, goes=8),
    _Column("disk", _disk, goes=7),
    _Column("jobs", _jobs, goes=6),
    _Column("version", lambda machine, now: machine.version or "-", goes=1),
)
