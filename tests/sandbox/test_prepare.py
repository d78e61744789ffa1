"""`make run` from an empty folder up to the packages: what it says, what it refuses, and what a broken start leaves."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, free_port

NEEDED = ("Makefile", "sandbox/__init__.py", "sandbox/prepare.py", "sandbox/steps.py", "serving/__init__.py")
LAUNCHED = "print('launched')\n"


def wheel(folder: Path, name: str) -> str:
    """A package of one file; returns its line for requirements.txt."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make run` reads before anything is installed, two packages to install, and their index."""
    folder = tmp_path / "checkout"
    for name in (*NEEDED, "serving/listeners.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "sandbox/launch.py").write_text(LAUNCHED)
    (tmp_path / "index").mkdir()
    lines = [wheel(tmp_path / "index", name) for name in ("first_package", "second_package")]
    (folder / "requirements.txt").write_text("# with hashes\n" + "".join(lines))
    return folder


def make_run(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder.parent / "index"), "PIP_CONFIG_FILE": os.devnull}
    environment = kept | index | {name: str(value) for name, value in settings.items()}
    command = ["make", "run", f"BASE_PYTHON={sys.executable}"]
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=120
    )


def test_the_first_run_says_what_it_does_and_the_second_what_is_there(checkout):
    ended = make_run(checkout, PORT=free_port())
    assert ended.returncode == 0, ended.stderr
    said = re.sub(r"\d+(\.\d)? s", "N s", ended.stdout)
    assert re.sub(r"(?m)^[^:\n]*: (?!done)[^\n]*N s\n", "", said) == (
        "1/4 Making a Python environment in .venv ...\n"
        "1/4 Making a Python environment in .venv: done after N s\n"
        "2/4 Installing 2 packages ...\n"
        "2/4 Installing 2 packages: done after N s\n"
        "launched\n"
    )
    assert list(checkout.glob(".venv/lib/python*/site-packages/second_package.py"))
    again = make_run(checkout, PORT=free_port())
    assert again.stdout == "1/4 and 2/4: the Python environment and its packages are in .venv\nlaunched\n"


def test_a_taken_port_is_refused_before_anything_is_made(checkout):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refusal = f"Cannot start: can't listen on 127.0.0.1:{port} (Address already in use); set HOST and PORT"
        assert make_run(checkout, PORT=port).stderr.splitlines()[0] == refusal
        (checkout / ".env").write_text(f"# mine\nPORT={port}\n")
        ended = make_run(checkout)
        assert (ended.returncode, ended.stderr.splitlines()[0], ended.stdout) == (2, refusal, "")
    assert not (checkout / ".venv").exists()


def test_a_package_that_cannot_be_had_or_is_another_is_told_in_pips_words(checkout):
    requirements = checkout / "requirements.txt"
    requirements.write_text(re.sub(r"sha256:\w{6}", "sha256:000000", requirements.read_text()))
    ended = make_run(checkout, PORT=free_port())
    assert ended.returncode == 2
    assert "DO NOT MATCH THE HASHES" in ended.stderr
    assert "Cannot start: pip could not install requirements.txt; what it said last is above" in ended.stderr
    assert "launched" not in ended.stdout
    assert not (checkout / ".venv/runtime").exists()


def test_an_environment_whose_making_was_ended_is_made_anew(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    ended = make_run(checkout, PORT=free_port())
    assert ended.returncode == 0, ended.stderr
    assert "1/4 Making" in ended.stdout
