"""Where an installation is: versions, the link that says which is current, and links to its programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from ..services import Scope, ServiceError
from ..services.errors import cannot

PROGRAMS = {"clusteragent": ("clusteragent", "clustersh"), "clustersh": ("clustersh",)}
"""What is installed with a machine's service, and with a client."""
_HALF_MADE = ".clustersh-link-"


class Layout:
    """An installation in *data*; its programs' links are in *links*."""

    def __init__(self, data: Path, links: Path) -> None:
        self.data = data
        self.links = links
        self.log = data / "install.log"
        self.current = data / "current"

    def current_version(self) -> Path | None:
        """Return the folder of the current version."""
        return self.current.resolve() if self.current.is_symlink() else None

    def make_current(self, version: Path | None) -> None:
        """Have *version* be the current one, in one step. Raises ServiceError."""
        try:
            if version is None:
                self.current.unlink(missing_ok=True)
            else:
                _link(self.current, Path("versions", version.name))
        except OSError as error:
            raise cannot("change", self.current, error) from error

    def program(self, name: str) -> Path:
        """Return a program of the current version."""
        return self.current / "bin" / name

    def installed(self, name: str) -> bool:
        """Whether *name* was installed: the list of what was says so."""
        return (self.data / f"has-{name}").exists()

    def place(self, name: str) -> None:
        """Link the programs that come with *name*. What is there and not ours stays. Raises ServiceError."""
        try:
            self.note_folder(self.links)
            self.links.mkdir(parents=True, exist_ok=True)
            self._remove_half_made()
            (self.data / f"has-{name}").touch()
            for program in PROGRAMS[name]:
                link = self.links / program
                if link.is_symlink() or not link.exists():
                    _link(link, self.program(program))
        except OSError as error:
            raise cannot("link programs in", self.links, error) from error

    def take_away(self, name: str) -> None:
        """As if *name* had never been placed; what another one needs stays. Raises ServiceError."""
        try:
            self._remove_half_made()
            (self.data / f"has-{name}").unlink(missing_ok=True)
            needed = {program for other, programs in PROGRAMS.items() if self.installed(other) for program in programs}
            for program in set(PROGRAMS[name]) - needed:
                link = self.links / program
                if link.is_symlink() and link.readlink() == self.program(program):
                    link.unlink()
        except OSError as error:
            raise cannot("remove links from", self.links, error) from error

    def _remove_half_made(self) -> None:
        for folder in self.links.glob(f"{_HALF_MADE}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def is_empty(self) -> bool:
        """Whether nothing is installed any more."""
        return not any(self.installed(name) for name in PROGRAMS)

    def note_folder(self, folder: Path) -> None:
        """Note which folders will be made when *folder* is, so that they go with the installation."""
        made = [str(each) for each in (folder, *folder.parents) if not each.exists()]
        if made:
            with (self.data / "made").open("a", encoding="utf-8") as file:
                file.writelines(f"{each}\n" for each in made)

    def remove_others(self, *kept: Path | None) -> None:
        """Remove versions that are neither current nor in *kept*: processes may still run in the one before."""
        for version in (self.data / "versions").iterdir():
            if version != self.current_version() and version not in kept:
                shutil.rmtree(version, ignore_errors=True)


def layout(data: Path, scope: Scope, home: Path) -> Layout:
    """Return the installation in *data*, of a user with that *home* or of the system."""
    return Layout(data, Path("/usr/local/bin") if scope is Scope.SYSTEM else home / ".local" / "bin")


def check_whole() -> None:
    """Raise ServiceError unless every file of this very venv is there in its full size."""
    for distribution in distributions():
        for file in distribution.files or ():
            path = Path(os.fspath(file.locate()))
            try:
                found = path.stat().st_size
            except OSError:
                found = -1
            if found < 0 or file.size not in (None, found):
                raise ServiceError(f"{path} is damaged")


def _link(link: Path, target: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix=_HALF_MADE, dir=link.parent))
    try:
        (folder / "link").symlink_to(target)
        (folder / "link").replace(link)
    finally:
        with contextlib.suppress(OSError):
            (folder / "link").unlink(missing_ok=True)
            folder.rmdir()
