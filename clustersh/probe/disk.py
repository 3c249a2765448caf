"""The check ``disk``: how full a file system is, as ``df`` counts (what root alone may use is in neither part)."""

from __future__ import annotations

from pathlib import Path

from ..wire.units import format_size
from .failed import Failed, of_os
from .grammar import DiskRule


def check_disk(rule: DiskRule, _timeout_s: float) -> str:
    """Look at the file system that *rule* names."""
    from shutil import disk_usage

    try:
        usage = disk_usage(Path(rule.path).expanduser())
    except OSError as error:
        raise of_os(error) from error
    except RuntimeError as error:
        raise Failed("there is no such user") from error
    size = usage.used + usage.free
    if not size:
        raise Failed("no disk: its size is 0")
    used = 100 * usage.used / size
    said = f"{used:.1f}% used, {format_size(usage.free)} free"
    if not _keeps(rule, used, usage.free):
        raise Failed(said)
    return said


def _keeps(rule: DiskRule, used: float, free: int) -> bool:
    if rule.used_percent is not None:
        return used < rule.used_percent
    if rule.free_percent is not None:
        return 100 - used > rule.free_percent
    return rule.free_bytes is not None and free > rule.free_bytes
