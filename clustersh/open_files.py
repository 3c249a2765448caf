"""The limit on open files: a service has two or three a connection, an agent up to seven a job."""

from __future__ import annotations

import contextlib
import sys


def raise_open_files() -> int | None:
    """Raise this process's soft limit to the hard one; return what it was, None where nothing was to be raised."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls its hard limit infinite, and takes only what its kernel has.
    for wanted in (hard, 65536, 10240):
        if soft != resource.RLIM_INFINITY and (wanted > soft or wanted == resource.RLIM_INFINITY):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return soft
    return None
