"""Programs that fetch: what comes over plain HTTP, and where it goes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .calls import Call, Program
from .disks import check_written
from .options import Options, parse
from .values import FETCHED, UNKNOWN

_CURL_VALUES = "AbcCdDeEFhHKmoPQrTtuUwxXyYz"
_CURL_NAMES = (
    "user-agent cookie cookie-jar data data-raw data-binary data-urlencode dump-header referer cert cacert capath key "
    "form header max-time output proxy request retry retry-delay retry-max-time connect-timeout user url write-out "
    "resolve interface range upload-file limit-rate output-dir pinnedpubkey json unix-socket config proto ciphers"
)
_WGET_VALUES = "aoeitOTwQPUBlADIXR"
_WGET_NAMES = (
    "output-document output-file tries timeout user-agent header post-data post-file directory-prefix user password "
    "wait ca-certificate method body-data input-file execute"
)
_OPTIONS = {
    "curl": (_CURL_VALUES, _CURL_NAMES),
    "wget": (_WGET_VALUES, _WGET_NAMES),
    "fetch": ("o", "output"),
    "aria2c": ("od", "out dir"),
    "lynx": ("", ""),
    "http": ("o", "output"),
}
_GUESSING = ("curl", "wget")
"""Of the others what has no scheme may be anything."""
_PRINTING = ("lynx", "http")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){1,3}|::1|0\.0\.0\.0")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_plain(url: str) -> bool:
    """Whether *url* is fetched without TLS, from another machine. Without a scheme it is."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        if not re.match(r"[\w\[]", url) or url.startswith(UNKNOWN):
            return False
        url = f"http://{url}"
    elif scheme[1].lower() not in ("http", "ftp"):
        return False
    try:
        return not _LOOPBACK.fullmatch(urlsplit(url).hostname or "")
    except ValueError:
        return True


def _fetch(call: Call) -> str:
    """Note which files are fetched; return what is printed."""
    values, names = _OPTIONS[call.name]
    options = parse(call.words, values, names)
    urls = [url for url in [*options.operands, options.value("url")] if url]
    if call.name not in _GUESSING:
        urls = [url for url in urls if "://" in url]
    plain = [url for url in urls if is_plain(url)]
    if plain:
        call.shell.case.fetched = " ".join([call.name, *call.words])
    content = FETCHED if plain else UNKNOWN
    files = _files(call.name, options, urls)
    for path in files:
        check_written(call.shell.case, path, UNKNOWN, " ".join([call.name, *call.words]))
        call.state.write(path, content)
    return "" if files else content


def _files(name: str, options: Options, urls: list[str]) -> list[str]:
    """Return the files that are written; none where what is fetched is printed."""
    own_names = options.has("O", "remote-name", "remote-name-all") if name == "curl" else name not in _PRINTING
    output = options.value("output-document", "output", "O" if name == "wget" else "o")
    folder = options.value("output-dir", "directory-prefix", "P" if name == "wget" else "output-dir")
    if output in ("-", "/dev/stdout"):
        return []
    if output:
        return [output]
    own = [url.partition("?")[0].rstrip("/").rpartition("/")[2] for url in urls] if own_names else []
    return [f"{folder}/{each}" if folder else each for each in own]


PROGRAMS: dict[str, Program] = dict.fromkeys(_OPTIONS, _fetch)
