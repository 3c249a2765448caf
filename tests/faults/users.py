"""Programs as a user other than root: root may do anything, so it can't show what a refused access does."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

USER = 12345
"""A user id that needs no name, nor any right."""


@cache
def as_user() -> tuple[str, ...]:
    """Return the words that start a program as USER; none where the tests aren't root's themselves.

    Where this checkout or its Python lies in a folder closed to others (such as /root), the program sees, in a mount
    namespace of its own, an open folder there that holds just these.
    """
    if os.geteuid() != 0:
        return ()
    drop = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
    closed = dict(_closed())
    if not closed:
        return drop
    lines = ["umask 022", "held=$(mktemp -d)", "mount -t tmpfs none $held"]
    for number, path in enumerate(closed):
        lines += [f"mkdir $held/{number}", f"mount --bind {shlex.quote(str(path))} $held/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(folder))}" for folder in set(closed.values())]
    for number, path in enumerate(closed):
        target = shlex.quote(str(path))
        lines += [f"mkdir -p {target}", f"mount --bind $held/{number} {target}"]
    lines += ["umount --recursive --lazy $held", "rmdir $held", f'exec {shlex.join(drop)} "$@"']
    return ("unshare", "--mount", "sh", "-ec", "\n".join(lines), "as-user")


def _closed() -> Iterator[tuple[Path, Path]]:
    """Yield what USER needs and can't reach, with the folder that keeps it out."""
    needed = {Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parents[1], Path(__file__).parents[2]}
    for path in {*needed, Path(sys.prefix)}:
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                yield path, folder
                break


def give(path: Path) -> Path:
    """Make *path* USER's."""
    if os.geteuid() == 0:
        os.chown(path, USER, USER)
    return path
