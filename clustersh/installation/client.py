"""A client: the command, and the login that somebody is to approve."""

from __future__ import annotations

import shutil
from contextlib import ExitStack

from ..home import default_home, private_folder
from ..services import Scope
from . import config_file
from .programs import Programs
from .wish import Wish, quietly

_NAME = "clustersh"


def install(wish: Wish) -> None:
    """Install the command, and ask to be let in. Raises ServiceError."""
    layout, before = wish.layout, wish.layout.current_version()
    with ExitStack() as undo:
        if not layout.installed(_NAME):
            undo.callback(quietly(lambda: layout.take_away(_NAME)))
        undo.callback(quietly(lambda: layout.make_current(before)))
        if before != wish.venv:
            layout.make_current(wish.venv)
        layout.place(_NAME)
        said = f"Each user logs in: clustersh login {wish.address} --ca {wish.ca_sha256}\n"
        if wish.scope is Scope.USER:
            said = _log_in(wish, undo)
        undo.pop_all()
    layout.remove_others(before)
    wish.console.out_now(f"clustersh is installed: {layout.links / _NAME}\n{said}")
    if str(layout.links) not in wish.environ.get("PATH", "").split(":"):
        wish.console.hint_now(f'your shell doesn\'t look there yet: export PATH="{layout.links}:$PATH"')


def uninstall(wish: Wish) -> None:
    """Log out, and leave no file. May be done again. Raises ServiceError."""
    layout, home = wish.layout, default_home(wish.environ)
    hints: tuple[str, ...] = ()
    if wish.scope is Scope.USER:
        out = Programs(layout.current / "bin", wish.environ, wish.console.err_now, None).run(_NAME, "logout")
        out.check()
        hints = out.hints
        shutil.rmtree(home / "client", ignore_errors=True)
        if not layout.installed("clusteragent"):
            config_file.remove_join(home / "config.toml")
    layout.take_away(_NAME)
    if layout.is_empty():
        layout.make_current(None)
    wish.console.out_now("Logged out, and clustersh is removed.\n")
    for hint in hints:
        wish.console.hint_now(hint)


def _log_in(wish: Wish, undo: ExitStack) -> str:
    home = default_home(wish.environ)
    wish.layout.note_folder(home / "client")
    private_folder(home)
    path, existed = home / "config.toml", (home / "client").exists()
    was = config_file.read(path)
    undo.callback(quietly(lambda: config_file.restore(path, was)))
    config_file.set_join(path, wish.address, wish.ca_sha256)
    if not existed:
        undo.callback(lambda: shutil.rmtree(home / "client", ignore_errors=True))
    programs = Programs(wish.venv / "bin", wish.environ, wish.console.err_now, None)
    words = ("--name", wish.name) if wish.name else ()
    return wish.joined(programs.run(_NAME, "login", wish.address, "--ca", wish.ca_sha256, "--no-wait", *words)).out
