"""[join] of config.toml: what people wrote beside it stays."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from clustersh.config import load
from clustersh.installation.config_file import remove_join, set_join
from clustersh.services import ServiceError

CA = "ab" * 32
JOIN = f'[join]\ncoordinator = "hub:5672"\nca = "{CA}"\n'
AGENT = "# mine\n[agent]  # ours\nname = 'db1' # [join]\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", JOIN),
        (AGENT, f"{AGENT}\n{JOIN}"),
        (f"[join]\ncoordinator = 'old:1'\n\n{AGENT}", f"{AGENT}\n{JOIN}"),
        (f"{AGENT}[join]\n# was here\nca = '{'0' * 64}'", f"{AGENT}\n{JOIN}"),
        (f"[join]\ncoordinator = 'hub:5672'\nca = '{CA}'\n", f"[join]\ncoordinator = 'hub:5672'\nca = '{CA}'\n"),
    ],
)
def test_it_is_written_and_nothing_else_changes(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    if before:
        path.write_text(before)
    set_join(path, "hub:5672", CA)
    assert path.read_text() == after
    join = load(tmp_path).join
    assert (str(join.coordinator), str(join.ca)) == ("hub:5672", CA)
    assert path.stat().st_mode & 0o077 == 0 or before == after


@pytest.mark.parametrize(
    ("before", "after"), [(JOIN, None), ("", None), (f"{AGENT}\n{JOIN}", AGENT), (f"{JOIN}\n{AGENT}", AGENT)]
)
def test_it_is_taken_out_and_an_empty_file_goes(tmp_path: Path, before: str, after: str | None) -> None:
    path = tmp_path / "config.toml"
    if before:
        path.write_text(before)
    remove_join(path)
    assert (path.read_text() if path.exists() else None) == after


@pytest.mark.parametrize("text", [f"join = {{ca = '{CA}'}}\n", f"join.ca = '{CA}'\n", f"[ join ]\nca = '{CA}'\n"])
def test_what_is_written_in_another_way_is_said_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert tomllib.loads(text)
    for change in (lambda: set_join(path, "hub:5672", CA), lambda: remove_join(path)):
        with pytest.raises(ServiceError, match="not written as a section"):
            change()
    assert path.read_text() == text


def test_what_is_no_toml_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[agent\n")
    with pytest.raises(ServiceError, match="not valid TOML"):
        set_join(tmp_path / "config.toml", "hub:5672", CA)
