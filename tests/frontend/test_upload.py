from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from clustersh.frontend.upload import UploadError, scan
from clustersh.wire.files import EntryKind, decode_manifest


def entries(*paths: Path) -> dict[bytes, tuple[EntryKind, int]]:
    tree = scan(paths)
    assert isinstance(tree.manifest.source, bytes)
    return {entry.path: (entry.kind, entry.mode) for entry in decode_manifest(tree.manifest.source).entries}


def test_trees_keep_modes_empty_folders_inner_symlinks_and_odd_names(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "empty").mkdir(parents=True)
    (top / "empty").chmod(0o500)
    (top / "run.sh").write_bytes(b"x")
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("empty/")
    odd = os.fsencode(top) + b"/\xff\n"
    with open(odd, "wb") as file:  # noqa: PTH123 - a name that is not UTF-8
        file.write(b"odd")
    os.chmod(odd, 0o640)  # noqa: PTH101
    found = entries(top)
    assert found[b"top/empty"] == (EntryKind.FOLDER, 0o500)
    assert found[b"top/run.sh"] == (EntryKind.FILE, 0o755)
    assert found[b"top/\xff\n"] == (EntryKind.FILE, 0o640)
    assert found[b"top/link"][0] is EntryKind.SYMLINK
    assert next(iter(found)) == b"top"


def test_a_named_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "alias").symlink_to("real")
    assert entries(tmp_path / "alias")[b"alias"][0] is EntryKind.FILE


def test_dot_is_called_as_its_directory(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    assert list(entries(tmp_path / "work" / ".")) == [b"work"]


@pytest.mark.parametrize("target", ["../../outside", "/etc/passwd", "inner/../../outside"])
def test_symlinks_that_lead_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(target)
    with pytest.raises(UploadError, match="leads out"):
        scan([tmp_path / "top"])


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UploadError, match="a named pipe"):
        scan([tmp_path / "pipe"])
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        with pytest.raises(UploadError, match="a socket"):
            scan([tmp_path / "s"])
    with pytest.raises(UploadError, match="a device"):
        scan([Path("/dev/null")])


def test_two_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").write_bytes(b"")
    with pytest.raises(UploadError, match="have one name"):
        scan([tmp_path / "a" / "same", tmp_path / "b" / "same"])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"can't read .*nope: No such file"):
        scan([tmp_path / "nope"])


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: root reads everything.
    (tmp_path / "secret").write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UploadError, match=r"can't read .*secret: Permission denied"):
        scan([tmp_path / "secret"])


def test_deep_trees(tmp_path: Path) -> None:
    deep = tmp_path / "top"
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert len(entries(tmp_path / "top")) == 301
