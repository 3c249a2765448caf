"""The services in the foreground."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ReactorNotRunning

from clustersh import daemon


class StoppingReactor:
    """A reactor that a signal is stopping already."""

    def callWhenRunning(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)

    def stop(self) -> None:
        raise ReactorNotRunning("Can't stop reactor that isn't running.")


def test_a_service_that_can_t_start_while_it_is_stopped_only_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr(daemon, "_failures", failures)
    problem = OSError("the port is taken")
    daemon.stop_because(StoppingReactor(), problem)
    assert failures == [problem]
