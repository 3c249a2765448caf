"""Which places on a machine are whole systems, or disks."""

from __future__ import annotations

import fnmatch
import re

from .values import HOME, UNKNOWN, normal

_PATTERN = re.compile(r"[*?\[]")
_GLOBS = ("*", ".*", "**", "?*", "*.*", "{*,.*}", ".??*")
_NEARLY_ALL = re.compile(r"\?{1,4}\*")
_CLASSES = re.compile(r"\.?\[(!\.|\^\.|([aA]-[zZ])+(0-9)?)\]\*")
SYSTEM = frozenset(
    [
        *(
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/proc",
            "/sbin",
            "/sys",
            "/usr",
            "/var",
        ),
        *(
            "/sys",
            "/usr",
            "/var",
            "/usr/bin",
            "/usr/lib",
            "/usr/lib64",
            "/usr/sbin",
            "/usr/share",
            "/usr/lib/modules",
            "/usr/lib/systemd",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/lib/modules",
            "/etc/systemd",
            "/var/lib/dpkg",
            "/var/lib/rpm",
            "/var/lib",
            "/boot/efi",
        ),
        *("/System", "/System/Library", "/Library", "/private", "/private/etc", "/private/var"),
    ]
)
HOMES = frozenset(["/home", "/root", "/Users", "/Applications", HOME])
_NO_DISK = re.compile(
    r"/dev/(null|zero|full|random|urandom|tty.*|pts/.*|ptmx|std(in|out|err)|fd/.*|shm(/.*)?|kmsg|log|console|watchdog\d*|"
    r"loop.*|ram\d+|zram\d+|tcp/.*|udp/.*|net/.*|snd/.*|input/.*|dri/.*|bus/.*|char/.*|mqueue/.*|hugepages/.*|cpu.*|"
    r"rtc\d*|fuse|kvm|uinput|video\d+|usb/.*|hidraw\d+|lp\d+|i2c.*|spidev.*|gpio.*)"
)
_DISK = re.compile(
    r"/dev/((sd|hd|vd|xvd)([a-z]+\d*|[a-z]*[*?\[{].*)|nvme\d+(n\d+(p\d+)?)?|mmcblk\d+(p\d+|boot\d)?|md\d+(p\d+)?|md/.+|"
    r"dm-\d+|mapper/(?!control$).+|disk/by-[a-z-]+/.+|r?disk\d+(s\d+)*|nbd\d+|dasd[a-z]+\d*|bcache\d+|zd\d+|mtd(block)?\d+|"
    r"ad[ad]\d+.*|zvol/.+|sr\d+)"
)


def _is_glob(last: str) -> bool:
    """Whether the pattern *last* fits all that is in a folder, or nearly all."""
    return last in _GLOBS or bool(_NEARLY_ALL.fullmatch(last) or _CLASSES.fullmatch(last))


def root_of(path: str, folder: str = UNKNOWN) -> str:
    """Return "root" where *path* is all of the machine, "system" or "home" where it is a part that it needs, or ""."""
    whole = normal(path, folder)
    parent, _, last = whole.rpartition("/")
    if _is_glob(last):
        whole = parent or "/"
    if whole == "/":
        return "root"
    for places, kind in ((SYSTEM, "system"), (HOMES, "home")):
        if whole in places or (_PATTERN.search(whole) and any(_fits(whole, place) for place in places)):
            return kind
    return ""


def _fits(pattern: str, place: str) -> bool:
    """Whether a shell would make *place*, among others, of *pattern*."""
    parts, names = pattern.split("/"), place.split("/")
    return len(parts) == len(names) and all(map(fnmatch.fnmatchcase, names, parts))


def is_all_of_root(path: str, folder: str = UNKNOWN) -> bool:
    """Whether *path* is a pattern for all that is in ``/``."""
    whole = normal(path, folder)
    return whole.count("/") == 1 and whole.startswith("/") and _is_glob(whole[1:])


def is_disk(path: str) -> bool:
    """Whether *path* is a disk, a part of one, or something that is stored on one, whatever is not known of it."""
    whole = normal(path)
    tried = [whole.replace(UNKNOWN, one) for one in "a0"] if whole.startswith("/") else [whole]
    return any(_DISK.fullmatch(each) for each in tried)


def may_be_volume(path: str) -> bool:
    """Whether *path* is a device that can hold a file system: a disk, or a logical volume such as ``/dev/vg/data``."""
    whole = normal(path)
    if is_disk(whole):
        return True
    return bool(re.fullmatch(r"/dev/[^/]+/[^/]+", whole)) and not _NO_DISK.fullmatch(whole) and UNKNOWN not in whole
