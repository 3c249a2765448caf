"""Kinds of machines, as wheels tell them apart: a platform tag and a version of CPython."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from packaging.markers import default_environment
from packaging.tags import mac_platforms, platform_tags

_MANYLINUX = re.compile(r"manylinux_2_(\d{1,3})_(\w+)")
_MUSLLINUX = re.compile(r"musllinux_1_(\d{1,3})_(\w+)")
_MACOS = re.compile(r"macosx_(\d{1,3})_(\d{1,3})_(arm64|x86_64)")
_WINDOWS = {"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}
_OLD_NAMES = {"manylinux2014": "manylinux_2_17", "manylinux2010": "manylinux_2_12", "manylinux1": "manylinux_2_5"}
_PYTHON = re.compile(r"3\.(\d{1,2})")
_OLDEST_PYTHON = 11
_EXAMPLES = "manylinux_2_28_x86_64, musllinux_1_2_aarch64, macosx_14_0_arm64 or win_amd64"


class Target(NamedTuple):
    """Machines of one platform (a wheel's tag) and Python (``3.11``).

    *tags* are the platforms whose wheels work there, best first; *environment* is what requirements' markers see there.
    """

    platform: str
    python: str
    tags: tuple[str, ...]
    environment: dict[str, str]

    @property
    def system(self) -> str:
        """The ``sys_platform`` there."""
        return self.environment["sys_platform"]

    @property
    def machine(self) -> str:
        """The ``platform_machine`` there."""
        return self.environment["platform_machine"]


def own_platform() -> str:
    """Return the platform of this machine."""
    tags = list(platform_tags())
    return next((tag for tag in tags if _is_known(tag)), tags[0])


def target_of(platform: str, python: str) -> Target:
    """Return the machines that an admin names by these. Raises ValueError with a message for people."""
    found = _PYTHON.fullmatch(python)
    if not found or int(found[1]) < _OLDEST_PYTHON:
        raise ValueError(f"{python!r} is no Python that clustersh runs on: write it like 3.{_OLDEST_PYTHON} or 3.13")
    legacy, _, machine = platform.partition("_")
    given = f"{_OLD_NAMES[legacy]}_{machine}" if legacy in _OLD_NAMES else platform
    system, machine, tags = _read(given)
    return Target(platform, python, tuple(tags), _environment(system, machine, python))


def _read(platform: str) -> tuple[str, str, Iterator[str]]:
    """Return the ``sys_platform``, the machine and the tags that wheels for *platform* may have."""
    if found := _MANYLINUX.fullmatch(platform):
        return "linux", found[2], _manylinux(int(found[1]), found[2])
    if found := _MUSLLINUX.fullmatch(platform):
        tags = (f"musllinux_1_{minor}_{found[2]}" for minor in range(int(found[1]), -1, -1))
        return "linux", found[2], tags
    if found := _MACOS.fullmatch(platform):
        return "darwin", found[3], mac_platforms((int(found[1]), int(found[2])), found[3])
    if platform in _WINDOWS:
        return "win32", _WINDOWS[platform], iter((platform,))
    raise ValueError(f"{platform!r} is no platform that wheels are made for, such as {_EXAMPLES}")


def _is_known(platform: str) -> bool:
    return platform in _WINDOWS or any(known.fullmatch(platform) for known in (_MANYLINUX, _MUSLLINUX, _MACOS))


def _manylinux(newest: int, machine: str) -> Iterator[str]:
    old_names = {new: old for old, new in _OLD_NAMES.items()}
    for minor in range(newest, 4, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if old := old_names.get(f"manylinux_2_{minor}"):
            yield f"{old}_{machine}"


def _environment(system: str, machine: str, python: str) -> dict[str, str]:
    here = cast(dict[str, str], default_environment())
    return {
        **here,
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "nt" if system == "win32" else "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system],
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": system,
    }
