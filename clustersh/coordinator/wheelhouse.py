"""The wheels of the dependencies that an admin has fetched: what the package index hands out beside the own wheel.

Each wheel is a file named by its SHA-256; ``wheelhouse.json`` says which there are, under which names, and which
machines each *fill* is for. Replacing that file is the one step in which a fill takes effect: one that is killed
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from packaging.utils import parse_wheel_filename

from ..home import private_folder, read_json, write_json
from ..wire.jobs import Sha256

FOLDER = "wheelhouse"
_LIST = "wheelhouse.json"
_ENDING = ".whl"


class HeldWheel(msgspec.Struct, frozen=True):
    """A wheel: the name it is handed out under, and what it is. Raises ValueError for what is no wheel's name."""

    name: str
    sha256: Sha256
    size: int
    requires_python: str = ""

    def __post_init__(self) -> None:
        parse_wheel_filename(self.name)

    @property
    def project(self) -> str:
        """The name of what it installs, normalised."""
        return str(parse_wheel_filename(self.name)[0])

    @property
    def version(self) -> str:
        """The version of what it installs."""
        return str(parse_wheel_filename(self.name)[1])


class Fill(msgspec.Struct, frozen=True):
    """All that a machine of that platform (a wheel's tag) with that Python needs.

    *system* and *machine* are what requirements tell such machines by: ``sys_platform`` and ``platform_machine``.
    """

    platform: str
    python: str
    system: str
    machine: str
    filled: str
    wheels: tuple[HeldWheel, ...]

    @property
    def kind(self) -> tuple[str, str, str]:
        """What kind of machines it is for, as they can say of themselves."""
        return self.system, self.machine, self.python


class Contents(msgspec.Struct, frozen=True):
    """``wheelhouse.json``."""

    fills: tuple[Fill, ...] = ()

    def wheels(self) -> dict[str, HeldWheel]:
        """Every wheel by its name."""
        return {wheel.name: wheel for fill in self.fills for wheel in fill.wheels}

    def without(self, platform: str, python: str) -> Contents:
        """Return these without the fill for that platform and Python."""
        return Contents(tuple(each for each in self.fills if (each.platform, each.python) != (platform, python)))

    def kinds(self) -> list[tuple[str, str, str]]:
        """Return every kind of machine that there is a fill for."""
        return sorted({fill.kind for fill in self.fills})

    def requirements(self) -> str:
        """Return what to give ``pip install --require-hashes -r``: each version once, for the machines that need it."""
        return "".join(sorted(self._requirements()))

    def _requirements(self) -> Iterator[str]:
        versions: dict[tuple[str, str], list[tuple[tuple[str, str, str], str]]] = {}
        for fill in self.fills:
            for wheel in fill.wheels:
                versions.setdefault((wheel.project, wheel.version), []).append((fill.kind, wheel.sha256))
        for (project, version), held in versions.items():
            kinds = sorted({kind for kind, _ in held})
            where = "" if kinds == self.kinds() else f" ; {' or '.join(map(_marker, kinds))}"
            hashes = "".join(f" --hash=sha256:{sha256}" for sha256 in sorted({sha256 for _, sha256 in held}))
            yield f"{project}=={version}{where}{hashes}\n"


class Wheelhouse:
    """The folder of wheels in *state*, the coordinator's."""

    def __init__(self, state: Path) -> None:
        self.folder = state / FOLDER
        self._read: tuple[tuple[int, ...] | None, Contents] = (None, Contents())

    def read(self) -> Contents:
        """Return what there is: the same object until there is something else.

        Blocks; raises HomeError where the list is damaged.
        """
        path = self.folder / _LIST
        mark = _mark(path)
        if mark != self._read[0]:
            self._read = (mark, read_json(path, Contents) or Contents())
        return self._read[1]

    def path(self, wheel: HeldWheel) -> Path:
        """Where *wheel* lies."""
        return self.folder / f"{wheel.sha256}{_ENDING}"

    def replace(self, contents: Contents) -> None:
        """Have *contents* be what there is, then remove the wheels that are in it no more."""
        write_json(private_folder(self.folder) / _LIST, contents)
        self._remove_all_but(contents.wheels().values())

    def _remove_all_but(self, kept: Iterable[HeldWheel]) -> None:
        names = {self.path(wheel).name for wheel in kept}
        for path in self.folder.glob(f"*{_ENDING}"):
            if path.name not in names:
                path.unlink(missing_ok=True)


def _mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever *path* is replaced; None where it isn't there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _marker(kind: tuple[str, str, str]) -> str:
    names = ("sys_platform", "platform_machine", "python_version")
    conditions = (f"{name} == '{value}'" for name, value in zip(names, kind, strict=True))
    return f"({' and '.join(conditions)})"
