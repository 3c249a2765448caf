"""The coordinator's own wheel: what was installed, packed again, always the same."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from clustersh.coordinator.own_wheel import OwnWheel, pack, pack_installed

METADATA = "Metadata-Version: 2.1\nName: clustersh\nVersion: 1.2.3\nRequires-Python: >=3.11\nRequires-Dist: psutil>=6\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "clustersh/__init__.py": "x = 1\n",
        "clustersh/packaging/install/install.sh": "true\n",
        "clustersh/__pycache__/x.cpython-311.pyc": "compiled",
        "clustersh/.swap": "an editor's",
        "twisted/plugins/clustersh_agent.py": "y = 2\n",
        "twisted/plugins/others.py": "z = 3\n",
        "twisted/plugins/dropin.cache": "cache",
        "clustersh-1.2.3.dist-info/METADATA": METADATA,
        "clustersh-1.2.3.dist-info/INSTALLER": "pip",
        "clustersh-1.2.3.dist-info/direct_url.json": '{"url": "file:///home/ann/secret-project"}',
        "clustersh-1.2.3.dist-info/entry_points.txt": "[console_scripts]\nclustersh = clustersh:main\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def found(root: Path) -> Distribution:
    return PathDistribution(root / "clustersh-1.2.3.dist-info")


def names(wheel: OwnWheel) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        return set(archive.namelist())


EDITABLE = {
    "clustersh/__init__.py",
    "clustersh/packaging/install/install.sh",
    "twisted/plugins/clustersh_agent.py",
    *(f"clustersh-1.2.3.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")),
}


def test_a_checkout_is_packed_by_walking_it(found: Distribution, root: Path) -> None:
    wheel = pack(found, root)
    assert names(wheel) == EDITABLE
    assert (wheel.name, wheel.version) == ("clustersh-1.2.3-py3-none-any.whl", "1.2.3")
    assert (wheel.requires, wheel.requires_python) == (("psutil>=6",), ">=3.11")
    assert wheel.sha256 == hashlib.sha256(wheel.content).hexdigest()


def test_an_installation_is_packed_by_its_record(found: Distribution, root: Path) -> None:
    record = ("clustersh/__init__.py", "twisted/plugins/clustersh_agent.py", "../../bin/clustersh")
    compiled = "clustersh/__pycache__/x.cpython-311.pyc"
    (root / "clustersh-1.2.3.dist-info/RECORD").write_text("".join(f"{name},,\n" for name in (*record, compiled)))
    assert names(pack(found, root)) == EDITABLE - {"clustersh/packaging/install/install.sh"}


def test_the_same_files_are_the_same_bytes_whenever_they_were_written(found: Distribution, root: Path) -> None:
    first = pack(found, root)
    for path in root.rglob("*"):
        path.touch()
    (root / "clustersh/__init__.py").chmod(0o600)
    assert pack(found, root) == first
    (root / "clustersh/__init__.py").write_text("x = 2\n")
    assert pack(found, root).sha256 != first.sha256


def test_its_record_has_the_sum_of_every_file(found: Distribution, root: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack(found, root).content)) as archive:
        rows = list(csv.reader(archive.read("clustersh-1.2.3.dist-info/RECORD").decode().splitlines()))
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            found_sum = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={found_sum}", len(content))
        assert rows[-1] == ["clustersh-1.2.3.dist-info/RECORD", "", ""]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What pip makes of the wheel of this very installation."""
    folder, wheel = tmp_path_factory.mktemp("own-wheel"), pack_installed()
    (folder / wheel.name).write_bytes(wheel.content)
    words = ("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", folder / "site")
    subprocess.run([sys.executable, *words, folder / wheel.name], check=True)
    yield folder / "site"


@pytest.mark.real
def test_pip_installs_it_and_what_is_installed_packs_to_the_same_wheel(target: Path) -> None:
    (info,) = target.glob("clustersh-*.dist-info")
    assert (target / "clustersh/packaging/install/install.sh").read_bytes()
    assert (target / "twisted/plugins/clustersh_coordinator.py").exists()
    assert not (target / "twisted/__init__.py").exists()
    assert pack(PathDistribution(info), target) == pack_installed()
