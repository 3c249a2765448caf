"""What writes onto a disk, past its file systems, or makes new ones on it."""

from __future__ import annotations

from .calls import Call, Program, for_all, silent
from .case import Case
from .options import Options, parse
from .paths import is_disk, may_be_volume

_SYSRQ = "/proc/sysrq-trigger"
_SLEEP = "/sys/power/state"
_SYSRQ_POWER = frozenset("bco")
_EXT = ("mke2fs", "mkfs.ext2", "mkfs.ext3", "mkfs.ext4")
_EXT_VALUES = "bCdeEgGiIJlLmMNoOrtTUz"
_ALWAYS = "mkswap blkdiscard pvcreate pvremove sg_format sg_sanitize make-bcache"
_WITH_OPTION = {
    "wipefs": "a all o offset",
    "sgdisk": "Z zap-all z zap o clear d delete",
    "hdparm": "security-erase security-erase-enhanced trim-sector-ranges",
    "mdadm": "create C zero-superblock",
    "badblocks": "w",
}
_WITH_VERB = {
    "parted": "mklabel mktable mkpart rm",
    "cryptsetup": "luksFormat erase luksErase reencrypt",
    "nvme": "format sanitize",
    "zpool": "create labelclear",
    "diskutil": "eraseDisk eraseVolume partitionDisk zeroDisk randomDisk secureErase reformat",
}
_SFDISK_READS = "l list d dump J json s show-size F list-free V verify g show-geometry n no-act help"


def check_written(case: Case, path: str, text: str, where: str) -> None:
    """Judge that *text* is written to *path*, by the words *where*."""
    if is_disk(path):
        case.report("disk-write", [where])
    check_sysrq(case, path, text, where)


def check_sysrq(case: Case, path: str, text: str, where: str) -> None:
    """Judge that *text* is written to *path*, which may be one by which the kernel is told to stop or to sleep."""
    if (path == _SYSRQ and text.strip()[:1] in _SYSRQ_POWER) or (path == _SLEEP and text.strip()):
        case.report("power", [f"{text.strip()} {where}"])


def _dd(call: Call) -> None:
    for word in call.words:
        name, _, path = word.partition("=")
        if name == "of":
            check_sysrq(call.shell.case, path, call.stdin, word)
        if name in ("of", "hof", "wipe") and may_be_volume(path):
            call.report("disk-write")


def _tee(call: Call) -> str:
    options = parse(call.words)
    for path in options.operands:
        check_written(call.shell.case, path, call.stdin, f"tee {path}")
        call.state.write(path, call.stdin, append=options.has("a", "append"))
    return call.stdin


def _cp(call: Call) -> None:
    paths = parse(call.words, "tS", "target-directory suffix").operands
    if len(paths) > 1 and is_disk(paths[1 if call.name == "ddrescue" else -1]):
        call.report("disk-write")


def _convert(call: Call) -> None:
    """``qemu-img``: what only looks at a disk has other verbs."""
    verb, *paths = parse(call.words, "fOolsSTtmUrnd").operands or [""]
    if verb == "convert" and len(paths) > 1 and is_disk(paths[-1]):
        call.report("disk-write")
    if verb == "dd":
        _dd(call)


def _tar(call: Call) -> None:
    words = ["-" + word if number == 0 and word[:1].isalpha() else word for number, word in enumerate(call.words)]
    options = parse(words, "fCTXbI", "file directory files-from exclude exclude-from use-compress-program")
    if options.has("c", "r", "u", "create", "append", "update") and is_disk(options.value("f", "file")):
        call.report("disk-write")


def _shred(call: Call) -> None:
    if any(may_be_volume(path) for path in parse(call.words, "ns", "iterations size random-source").operands):
        call.report("disk-write")


def _format(call: Call, options: Options) -> None:
    if any(may_be_volume(path) for path in options.operands) and not options.has("help"):
        call.report("disk-format")


def _always(call: Call) -> None:
    _format(call, parse(call.words))


def _mkfs(call: Call) -> None:
    only_tries = call.name in _EXT and parse(call.words, _EXT_VALUES).has("n")
    if not only_tries:
        _format(call, parse(call.words))


def _with_option(call: Call) -> None:
    options = parse(call.words)
    if options.has(*_WITH_OPTION[call.name].split()):
        _format(call, options)


def _with_verb(call: Call) -> None:
    options = parse(call.words)
    if set(options.operands) & set(_WITH_VERB[call.name].split()):
        disks = [path if "/" in path else f"/dev/{path}" for path in options.operands]
        _format(call, Options(options.given, disks))


def _sfdisk(call: Call) -> None:
    options = parse(call.words, "NWwoXY")
    if not options.has(*_SFDISK_READS.split()):
        _format(call, options)


def _fdisk(call: Call) -> None:
    """``fdisk`` and its like ask; what they are answered ends with writing."""
    options = parse(call.words)
    if not options.has("l", "list", "s") and {"w", "write"} & set(call.stdin.split()):
        _format(call, options)


PROGRAMS: dict[str, Program] = {
    "tee": _tee,
    **for_all("dd dcfldd dc3dd", silent(_dd)),
    **for_all("cp ddrescue dd_rescue bmaptool", silent(_cp)),
    "qemu-img": silent(_convert),
    "tar": silent(_tar),
    **for_all("shred scrub wipe", silent(_shred)),
    **for_all("mkfs.* mke2fs mkdosfs mkntfs newfs", silent(_mkfs)),
    **for_all(_ALWAYS, silent(_always)),
    **dict.fromkeys(_WITH_OPTION, silent(_with_option)),
    **dict.fromkeys(_WITH_VERB, silent(_with_verb)),
    "sfdisk": silent(_sfdisk),
    **for_all("fdisk gdisk cfdisk", silent(_fdisk)),
}
