"""REST: what the policy says, without anything coming of it."""

from __future__ import annotations

from ..wire.policy import PolicyTest, PolicyView
from ..wire.problems import Kind
from ..wire.rest import RunRequest
from .api import Api
from .callers import Caller
from .http import Request
from .policy.policy import Policy
from .requests import Requests
from .routes import CLIENTS


class PolicyCalls:
    """``/v1/policy``."""

    def __init__(self, policy: Policy, requests: Requests) -> None:
        self._policy = policy
        self._requests = requests

    def add_to(self, api: Api) -> None:
        """Add the calls."""
        problems = (Kind.UNKNOWN_MACHINE, Kind.UNKNOWN_GROUP, Kind.EMPTY_TARGET, Kind.TOO_LARGE, Kind.RATE_LIMITED)
        api.add("GET", "/v1/policy", self.view, CLIENTS)
        api.add("POST", "/v1/policy/test", self.test, CLIENTS, RunRequest, problems=problems)

    async def view(self, request: Request, caller: Caller) -> PolicyView:
        """Say what holds for the caller."""
        return self._policy.view(caller.identity)

    async def test(self, request: Request, caller: Caller, body: RunRequest) -> PolicyTest:
        """Say whether such a run would pass, and why not; nothing is recorded, started or asked for."""
        chosen = self._requests.choose(caller.identity, body)
        return await request.unless_gone(self._policy.test(caller.identity, body, chosen.machines))
