"""What machines install: the coordinator's own wheel, and the wheelhouse beside it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ..home import HomeError
from ..wire.problems import Kind, ProblemError
from .own_wheel import OwnWheel, OwnWheelError, pack_installed
from .package_index import PackageIndex, index_of
from .wheelhouse import Contents, Wheelhouse


class Packages:
    """The files of the package index. The own wheel is made once, by *pack*; the wheelhouse may change at any time."""

    _log = Logger()

    def __init__(self, wheelhouse: Wheelhouse, pack: Callable[[], OwnWheel] = pack_installed) -> None:
        self._wheelhouse = wheelhouse
        self._pack = pack
        self._packing = DeferredLock()
        self._own: OwnWheel | None = None
        self._indexed: tuple[Contents, PackageIndex] | None = None

    async def prepare(self) -> None:
        """Make the own wheel now: later the files may be those of another version."""
        try:
            await self.own()
        except ProblemError as error:
            self._log.warn("no machine can be installed from here: {reason}", reason=error.problem.detail)

    async def own(self) -> OwnWheel:
        """Return the coordinator's own wheel. Raises ProblemError where there is none."""
        await self._packing.acquire()
        try:
            if self._own is None:
                self._own = await deferToThread(self._pack)
            return self._own
        except OwnWheelError as error:
            raise ProblemError(Kind.UNAVAILABLE, str(error)) from error
        finally:
            self._packing.release()

    async def contents(self) -> Contents:
        """Return what the wheelhouse holds. Raises ProblemError where that can't be read."""
        try:
            return await deferToThread(self._wheelhouse.read)
        except HomeError as error:
            raise ProblemError(
                Kind.UNAVAILABLE,
                "the coordinator's wheelhouse can't be read",
                hint="on the coordinator: clusterd wheelhouse list",
            ) from error

    async def index(self) -> PackageIndex:
        """Return all there is. Raises ProblemError."""
        own, contents = await self.own(), await self.contents()
        if self._indexed is None or self._indexed[0] is not contents:
            self._indexed = contents, await deferToThread(index_of, own, self._wheelhouse, contents)
        return self._indexed[1]
