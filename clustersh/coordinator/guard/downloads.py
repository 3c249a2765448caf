"""Programs that fetch: what comes over plain HTTP, and where it goes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .options import Options, parse
from .state import State
from .values import FETCHED, UNKNOWN

PROGRAMS = frozenset(["curl", "wget", "fetch"])
_CURL_VALUES = "AbcCdDeEFhHKmoPQrTtuUwxXyYz"
_CURL_LONG = frozenset(
    "user-agent cookie cookie-jar data data-raw data-binary data-urlencode dump-header referer cert cacert capath key form "
    "header max-time output proxy request retry retry-delay retry-max-time connect-timeout user url write-out resolve "
    "interface range upload-file limit-rate output-dir pinnedpubkey json unix-socket".split()
)
_WGET_VALUES = "aoeitOTwQPUBlADIXR"
_WGET_LONG = frozenset(
    "output-document output-file tries timeout user-agent header post-data post-file directory-prefix user password wait "
    "ca-certificate method body-data".split()
)
_LOOPBACK = re.compile(r"localhost|127(\.\d+){1,3}|\[?::1\]?|0\.0\.0\.0")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_plain(url: str) -> bool:
    """Whether *url* is fetched without TLS from another machine."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        if url.startswith(UNKNOWN) or not re.match(r"[\w\[]", url):
            return False
        url = f"http://{url}"
    elif scheme[1].lower() not in ("http", "ftp"):
        return False
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return True
    return not _LOOPBACK.fullmatch(host)


def fetch(name: str, words: list[str], state: State) -> str:
    """Note which files *words* fill; return what they print."""
    options = _options(name, words)
    urls = [*options.operands, options.given.get("url", "")]
    got = FETCHED if any(url and is_plain(url) for url in urls) else UNKNOWN
    names = [_last(url) for url in urls if url]
    if name == "wget" and not options.has("O", "output-document"):
        files = names
    elif name == "curl" and options.has("O", "remote-name", "remote-name-all"):
        files = names
    else:
        output = options.given.get("O" if name == "wget" else "o") or options.given.get("output-document") or options.given.get("output")
        if not output or output in ("-", "/dev/stdout"):
            return got
        files = [output]
    for file in files:
        if file and got == FETCHED:
            state.write(file, got)
    return ""


def _options(name: str, words: list[str]) -> Options:
    if name == "curl":
        return parse(words, _CURL_VALUES, _CURL_LONG)
    return parse(words, _WGET_VALUES if name == "wget" else "o", _WGET_LONG)


def _last(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]
