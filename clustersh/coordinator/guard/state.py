"""What a shell knows while it runs: variables, functions, files that it wrote, where it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .values import FETCHED, HOME, UNKNOWN, bounded, normal

if TYPE_CHECKING:
    from tree_sitter import Node

MOST_NAMES = 1000


@dataclass
class State:
    """A shell's own; a subshell has a copy."""

    variables: dict[str, str] = field(default_factory=lambda: {"HOME": HOME, "IFS": " \t\n", "_": ""})
    functions: dict[str, Node] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """What files and ``<(...)`` are known to hold."""
    folder: str = UNKNOWN
    arguments: list[str] | None = None
    """The positional parameters, where they are known."""
    running: tuple[int, ...] = ()
    """The functions that are being called, by their nodes."""

    def copy(self) -> State:
        """Return what a subshell starts with. Files are shared."""
        return replace(self, variables=dict(self.variables), functions=dict(self.functions))

    def set(self, name: str, value: str) -> None:
        if name in self.variables or len(self.variables) < MOST_NAMES:
            self.variables[name] = bounded(value)

    def forget(self) -> None:
        """Know no variable any more: something ran that may have set any."""
        self.variables = dict.fromkeys(self.variables, UNKNOWN)

    def write(self, path: str, content: str, append: bool = False) -> None:
        path = normal(path, self.folder)
        if path in self.files or len(self.files) < MOST_NAMES:
            self.files[path] = bounded((self.files.get(path, UNKNOWN) if append else "") + content)

    def read(self, path: str) -> str:
        return self.files.get(normal(path, self.folder), UNKNOWN)

    def made_file(self, content: str) -> str:
        """Return the name of a file with *content* that ``<(...)`` made."""
        name = f"/dev/fd/{100 + len(self.files)}"
        self.write(name, content)
        return name

    def merge_branches(self, before: dict[str, str]) -> None:
        """Forget what was set in something that may not have run: *before* has the variables from before it."""
        for name, value in self.variables.items():
            if before.get(name) != value:
                self.variables[name] = FETCHED if FETCHED in value else UNKNOWN
