"""Templates of clustersh/packaging, and how a value is quoted in each kind of file."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from xml.sax.saxutils import escape


def render(name: str, /, **values: str) -> str:
    """Return the template *name* (``systemd/clusterd.service``) with every ``$key`` replaced; none may be left."""
    text = (files("clustersh") / "packaging").joinpath(*name.split("/")).read_text("utf-8")
    return Template(text).substitute(values)


def systemd(text: str) -> str:
    """Return *text* as one quoted word of a unit's setting; ``%`` stands for itself."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def xml(text: str) -> str:
    """Return *text* as the content of an XML element: plists, and Windows' tasks."""
    return escape(text)


def windows(text: str) -> str:
    """Return *text* as one argument of a Windows command line."""
    if '"' in text:
        raise ValueError(f"{text!r}: no path on Windows has a quotation mark")
    trailing = len(text) - len(text.rstrip("\\"))
    return f'"{text}{chr(92) * trailing}"'
