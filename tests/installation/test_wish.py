"""The line that an installer proposes: the same again, with something more."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustersh.cli.console import Console
from clustersh.installation.layout import Layout
from clustersh.installation.wish import Wish
from clustersh.services import Scope

LINE = "curl -fsS http://hub:5672/install.sh"


async def at_once(function: object) -> None:
    raise AssertionError("nothing is written here")


def wish(scope: Scope, run_as: str = "") -> Wish:
    return Wish(
        layout=Layout(Path("/data"), Path("/links")),
        scope=scope,
        environ={},
        console=Console.on(1, 2, {}, at_once),
        venv=Path(),
        address="hub:5672",
        ca_sha256="",
        name="",
        run_as=run_as,
        service=True,
        line=LINE,
        token="",
    )


@pytest.mark.parametrize(
    ("scope", "run_as", "token", "rest"),
    [
        (Scope.USER, "", False, "bash -s -- --name 'a b'"),
        (Scope.USER, "", True, "CLUSTERSH_TOKEN=... bash -s -- --name 'a b'"),
        (Scope.SYSTEM, "ann", False, "sudo bash -s -- --system --run-as ann --name 'a b'"),
        (
            Scope.SYSTEM,
            "",
            True,
            "CLUSTERSH_TOKEN=... sudo --preserve-env=CLUSTERSH_TOKEN bash -s -- --system --name 'a b'",
        ),
    ],
)
def test_a_token_is_never_a_word_that_others_see(scope: Scope, run_as: str, token: bool, rest: str) -> None:
    assert wish(scope, run_as).again("--name", "a b", token=token) == f"{LINE} | {rest}"
