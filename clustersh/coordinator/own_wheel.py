"""The coordinator's own wheel, packed again from what is installed, so that machines get exactly its version.

The same installation always gives the same bytes (times are fixed, names sorted), so the SHA-256 that installers carry
stays the same over restarts.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import clustersh

PROJECT = "clustersh"
_PACKAGE = "clustersh/"
_PLUGINS = "twisted/plugins/"
_WHEEL = "Wheel-Version: 1.0\nGenerator: clusterd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip file can tell."""


class OwnWheelError(Exception):
    """The installation can't be packed; the message says why."""


class OwnWheel(NamedTuple):
    """A wheel file; *requires* are its ``Requires-Dist``."""

    name: str
    version: str
    content: bytes
    sha256: str
    requires: tuple[str, ...]
    requires_python: str


def pack_installed() -> OwnWheel:
    """Pack the installation that this process runs from; blocks for a moment. Raises OwnWheelError."""
    root = Path(clustersh.__file__).resolve().parent.parent
    # A checkout may have an egg-info too, which a build left there and which may be old.
    found = sorted((each for each in distributions(name=PROJECT) if _metadata(each)), key=_is_egg_info)
    if not found:
        raise OwnWheelError(f"{PROJECT} runs from {root} without being installed, so nothing says what it needs")
    try:
        return pack(found[0], root)
    except OSError as error:
        raise OwnWheelError(f"can't read the installed {error.filename}: {error.strerror}") from error


def pack(found: Distribution, root: Path) -> OwnWheel:
    """Pack *found*: the files that its RECORD lists, or else (an editable checkout) those under *root*."""
    version = found.version
    info = f"{PROJECT}-{re.sub(r'[^A-Za-z0-9.]+', '_', version)}.dist-info"
    files = _recorded(found) or _walked(root)
    files |= {f"{info}/{name}": content for name, content in _about(found)}
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    content = _zipped(files)
    return OwnWheel(
        f"{info.removesuffix('.dist-info')}-py3-none-any.whl",
        version,
        content,
        hashlib.sha256(content).hexdigest(),
        tuple(found.requires or ()),
        found.metadata["Requires-Python"] or "",
    )


def _metadata(found: Distribution) -> str:
    return found.read_text("METADATA") or found.read_text("PKG-INFO") or ""


def _is_egg_info(found: Distribution) -> bool:
    return not found.read_text("METADATA")


def _recorded(found: Distribution) -> dict[str, bytes]:
    """Return the package's files by name, as RECORD lists them; none where it lists none."""
    names = (PurePosixPath(row[0]) for row in csv.reader((found.read_text("RECORD") or "").splitlines()) if row)
    ours = [name for name in names if str(name).startswith((_PACKAGE, _PLUGINS)) and not _is_made_here(name)]
    return {str(name): Path(str(found.locate_file(str(name)))).read_bytes() for name in ours}


def _walked(root: Path) -> dict[str, bytes]:
    """Return the package's files by name, as they lie under *root*."""
    paths = [*(root / _PACKAGE).rglob("*"), *(root / _PLUGINS).glob(f"{PROJECT}_*.py")]
    named = {PurePosixPath(path.relative_to(root).as_posix()): path for path in paths if path.is_file()}
    return {str(name): path.read_bytes() for name, path in named.items() if not _is_made_here(name)}


def _is_made_here(name: PurePosixPath) -> bool:
    """Whether that is nothing of the package: compiled here, or an editor's."""
    return "__pycache__" in name.parts or ".." in name.parts or name.name.startswith(".")


def _about(found: Distribution) -> Iterator[tuple[str, bytes]]:
    yield "METADATA", _metadata(found).encode()
    for name in ("entry_points.txt", "licenses/LICENSE"):
        text = found.read_text(name)
        if text:
            yield name, text.encode()


def _record(files: Mapping[str, bytes], own: str) -> bytes:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for name in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        writer.writerow((name, f"sha256={digest}", len(files[name])))
    writer.writerow((own, "", ""))
    return lines.getvalue().encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return packed.getvalue()
