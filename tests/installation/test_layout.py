"""An installation's folder: versions, the current one, links, and what two programs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustersh.installation.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "share" / "clustersh", tmp_path / "home" / ".local" / "bin")
    for version in ("1.a", "1.b", "1.c"):
        (made.data / "versions" / version / "bin").mkdir(parents=True)
    return made


def test_the_current_version_is_one_link_that_is_replaced(layout: Layout) -> None:
    assert layout.current_version() is None
    for name in ("1.a", "1.b"):
        layout.make_current(layout.data / "versions" / name)
        assert layout.current_version() == layout.data / "versions" / name
    assert layout.current.readlink() == Path("versions/1.b")
    layout.make_current(None)
    assert not layout.current.is_symlink()
    assert {path.name for path in layout.data.iterdir()} == {"versions"}


def test_the_versions_that_nothing_needs_go(layout: Layout) -> None:
    layout.make_current(layout.data / "versions" / "1.c")
    layout.remove_others(layout.data / "versions" / "1.b")
    assert {path.name for path in (layout.data / "versions").iterdir()} == {"1.b", "1.c"}


def test_links_are_shared_and_a_file_of_someone_elses_stays(layout: Layout) -> None:
    layout.place("clusteragent")
    layout.place("clustersh")
    links = {path.name: path.readlink() for path in layout.links.iterdir()}
    assert links == {name: layout.program(name) for name in ("clusteragent", "clustersh")}
    layout.take_away("clusteragent")
    assert [path.name for path in layout.links.iterdir()] == ["clustersh"]
    assert not layout.is_empty()
    (layout.links / "clustersh").unlink()
    (layout.links / "clustersh").write_text("mine")
    layout.place("clustersh")
    layout.take_away("clustersh")
    assert (layout.links / "clustersh").read_text() == "mine"
    assert layout.is_empty()


def test_a_link_that_was_half_made_goes_with_the_next(layout: Layout) -> None:
    layout.links.mkdir(parents=True)
    half = layout.links / ".clustersh-link-x"
    half.mkdir()
    (half / "link").symlink_to("nowhere")
    layout.place("clustersh")
    assert [path.name for path in layout.links.iterdir()] == ["clustersh"]


def test_the_folders_that_will_be_made_are_noted_once_they_are_missing(layout: Layout, tmp_path: Path) -> None:
    layout.place("clustersh")
    layout.place("clustersh")
    home = tmp_path / "home"
    noted = (layout.data / "made").read_text().splitlines()
    assert noted == [str(home / ".local/bin"), str(home / ".local"), str(home)]
