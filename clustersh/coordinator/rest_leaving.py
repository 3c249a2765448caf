"""How a machine or a client gives its own certificate up."""

from __future__ import annotations

from ..trust.identity import Role
from ..wire.problems import Kind
from .api import Api
from .callers import Caller
from .http import Request
from .registry import Registry


class LeavingCalls:
    """``/v1/leave``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add_to(self, api: Api) -> None:
        """Add the call."""
        api.add("POST", "/v1/leave", self.leave, frozenset({Role.AGENT, Role.FRONTEND}), problems=(Kind.STORAGE,))

    async def leave(self, request: Request, caller: Caller) -> None:
        """Trust the caller's own key no more; of a machine, that ends its open jobs as lost."""
        request.spare()
        await self._registry.leave(caller.identity)
