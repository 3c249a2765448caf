"""Builds the Debian package with dpkg-deb: a venv of the system's Python in /usr/lib/clustersh, and what belongs to it.

.venv/bin/python packaging/debian/build.py dist [--python /usr/bin/python3]
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "clustersh", "twisted")
VENV = Path("/usr/lib/clustersh")
PROGRAMS = ("clusterd", "clusteragent", "clustersh")
COMPLETIONS = {
    "clustersh.bash": "usr/share/bash-completion/completions/clustersh",
    "_clustersh": "usr/share/zsh/vendor-completions/_clustersh",
    "clustersh.fish": "usr/share/fish/vendor_completions.d/clustersh.fish",
}


def main() -> None:
    """Build the package and print its path."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("output", type=Path, help="the folder to put it in")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="the system's Python")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from clustersh import __version__

    options.output.mkdir(parents=True, exist_ok=True)
    python = options.python.resolve(strict=True)
    architecture = output_of("dpkg", "--print-architecture")
    built = options.output / f"clustersh_{__version__}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix="clustersh-deb-") as folder:
        tree = Path(folder, "tree")
        tree.mkdir(mode=0o755)
        make_venv(tree, python, Path(folder))
        add_programs(tree)
        add_units(tree)
        add_control(tree, version=__version__, architecture=architecture, python=python.name)
        # gzip: xz would save a fifth of the size and take most of the build's time.
        run("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", tree, built)
    print(built)


def make_venv(tree: Path, python: Path, folder: Path) -> None:
    """Make the venv in *tree*, so that it works at its place on the machines that install it."""
    venv = tree / VENV.relative_to("/")
    run(python, "-m", "venv", "--without-pip", venv)
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin/python", "--disable-pip-version-check", "install")
    run(*pip, "--quiet", "--no-compile", source)
    run(venv / "bin/twistd", "--help", stdout=subprocess.DEVNULL)  # writes the cache of plugins
    for record in venv.glob("lib/*/site-packages/*.dist-info/RECORD"):
        settle(record, venv)
    for activate in [*venv.glob("bin/[Aa]ctivate*")]:
        activate.unlink()
    config = (venv / "pyvenv.cfg").read_text()
    (venv / "pyvenv.cfg").write_text("".join(f"{line}\n" for line in config.splitlines() if "command" not in line))
    for cache in [*venv.rglob("__pycache__")]:
        shutil.rmtree(cache)
    # Checked by nothing at run time: the package's files change together, or not at all.
    compile_all = ("-m", "compileall", "-q", "-j", "0", "-x", "/tests?/", "--invalidation-mode", "unchecked-hash")
    run(venv / "bin/python", *compile_all, "-s", tree, "-p", "/", venv / "lib")


def settle(record: Path, venv: Path) -> None:
    """Make the scripts that *record* lists start the Python of their final place, and say nothing of the build's."""
    site = record.parent.parent
    rows = []
    for name, digest, size in csv.reader(record.read_text().splitlines()):
        path = Path(os.path.normpath(site / name))
        if path.name == "direct_url.json":
            path.unlink()
            continue
        if path.parent == venv / "bin":
            content = path.read_bytes().replace(bytes(venv), bytes(VENV))
            path.write_bytes(content)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            digest, size = f"sha256={found}", str(len(content))
        rows.append((name, digest, size))
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def add_programs(tree: Path) -> None:
    """Add the links in /usr/bin, the completions and the licence."""
    bin_folder = tree / "usr/bin"
    bin_folder.mkdir(parents=True)
    for name in PROGRAMS:
        (bin_folder / name).symlink_to(f"../lib/clustersh/bin/{name}")
    for name, place in COMPLETIONS.items():
        copy(HERE.parent / "completions" / name, tree / place)
    copy(ROOT / "LICENSE", tree / "usr/share/doc/clustersh/copyright")


def add_units(tree: Path) -> None:
    """Add the systemd units, both the system's."""
    from clustersh.services import AGENT, COORDINATOR, Scope, Spec
    from clustersh.services.systemd import unit

    folder = tree / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for program in (COORDINATOR, AGENT):
        executable, home = Path("/usr/bin", program.name), Path("/var/lib", program.system_home)
        spec = Spec(program, Scope.SYSTEM, executable, home, program.system_user)
        (folder / f"{program.name}.service").write_text(unit(spec))


def add_control(tree: Path, **values: str) -> None:
    """Add what dpkg reads and runs."""
    kibibytes = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024
    folder = tree / "DEBIAN"
    folder.mkdir(mode=0o755)
    control = Template((HERE / "control").read_text()).substitute(values, kibibytes=kibibytes)
    (folder / "control").write_text(control)
    for name in ("postinst", "prerm", "postrm"):
        copy(HERE / name, folder / name)
        (folder / name).chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a tree, without what Python and twistd made in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    else:
        shutil.copyfile(source, target)


def run(*words: str | Path, stdout: int | None = None) -> None:
    """Run a command that has to succeed, with nothing of this checkout's Python in its way."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([str(word) for word in words], check=True, env=environ, stdout=stdout or sys.stderr.fileno())


def output_of(*words: str) -> str:
    """Return what a command prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    if platform.system() != "Linux":
        raise SystemExit("ERROR: a Debian package is built on Debian or what is made of it")
    main()
