"""``clustersh cat``: a job's stored output, byte for byte.

It is printed without a reactor (see quick_cat.py); what that can't finish is taken up by stored_output.py at its byte.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ..cli.errors import UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser, add_exclude, reads
from ..wire import units
from ..wire.output import Stream
from .fleet_arguments import add_layout, chosen_layout
from .identifiers import JobWords, job_words
from .layouts import Layout
from .reading import Part, Reading


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> CatStart:
    """Read the arguments of ``cat``."""
    examples = (
        "clustersh cat ws1 c41f9a02 | tail -n10",
        "clustersh cat ws1 c41f9a02 --stderr --tail 100",
        "clustersh cat ws1 c41f9a02 --offset 1MiB --length 64KiB",
        "clustersh cat @web c41f9a02 -o each   (of many machines, in sections)",
    )
    parser = Parser(
        "clustersh cat",
        "Print a job's output, stdout to stdout and stderr to stderr; one alone goes to stdout.",
        examples,
    )
    parser.usage = "clustersh cat [options] [TARGET] UUID"
    parser.add_argument(
        "words", nargs="+", metavar="[TARGET] UUID", help="the machines, and the run or its last digits"
    )
    add_exclude(parser)
    parser.add_argument("--stdout", action="store_true", help="only what it wrote to stdout")
    parser.add_argument("--stderr", action="store_true", help="only what it wrote to stderr")
    parser.add_argument("--tail", type=reads(_lines), metavar="LINES", help="only its last lines")
    parser.add_argument("--offset", type=reads(units.parse_size), default=0, metavar="BYTES", help="begin here")
    parser.add_argument("--length", type=reads(units.parse_size), metavar="BYTES", help="this many bytes at most")
    add_layout(parser, "how many machines' output is shown: folded, each, json")
    options = parser.read(invocation, arguments)
    layout = chosen_layout(invocation, options) or Layout.FOLDED
    if layout not in (Layout.FOLDED, Layout.EACH, Layout.JSON):
        raise UsageError(f"cat has no -o {layout}: use folded, each or json", ("clustersh cat --help",))
    jobs = job_words(options.words, options.exclude)
    if options.tail is not None and (options.offset or options.length is not None):
        raise UsageError("--tail counts from the end: leave out --offset and --length")
    stream = Stream.BOTH
    if options.stdout is not options.stderr:
        stream = Stream.STDOUT if options.stdout else Stream.STDERR
    return CatStart(invocation, jobs, Part(stream, options.tail, options.offset, options.length), layout)


class CatStart:
    """One `cat`, ready to start."""

    def __init__(self, invocation: Invocation, jobs: JobWords, part: Part, layout: Layout) -> None:
        self._invocation = invocation
        self._jobs = jobs
        self._part = part
        self._layout = layout
        self._reached: Reading | None = None

    def at_once(self) -> int | None:
        """Print it without a reactor and return the exit status; None where it takes one after all."""
        from .quick_cat import QuickCat

        if not self._jobs.machine and not self._jobs.all:
            return None
        quick = QuickCat(self._invocation, self._jobs.machine, self._jobs.uuid, self._part)
        status = quick.run()
        if quick.reading is not None and quick.reading.delivered:
            self._reached = quick.reading
        return status

    def __call__(self, reactor: Any) -> Coroutine[Any, Any, int]:
        """Print it, or the rest of it, with everything that may be needed."""
        from .stored_output import Words, cat

        self._invocation.signals.let_end()
        words = Words(self._jobs, self._part, self._layout)
        return cat(reactor, self._invocation, words, self._reached)


def _lines(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{text!r} is no number of lines")
    return int(text)
