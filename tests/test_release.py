"""`make release`: the same bytes each time, and a wheel that starts from an empty folder, without a clone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
import requests

from config.version import VERSION
from deploy.wheel.command_line import home
from tests.support.gateway import ROOT, environment, free_port, wait_for
from tests.test_deploy import copied

STEM = f"openrouter_gateway-{VERSION}"
WHEEL = f"{STEM}-py3-none-any.whl"


def build(into: Path, umask: int) -> dict[str, bytes]:
    """What a release of the tree as it is consists of, by name."""
    command = [sys.executable, "deploy/release.py", "--uncommitted", "--into", str(into)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, umask=umask)
    return {path.name: path.read_bytes() for path in into.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("release")


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return build(folder / "first", 0o022)


def test_two_builds_are_the_same_to_the_byte(files, folder):
    names = {WHEEL, f"{STEM}.tar.gz", f"{STEM}-image.tar.gz", f"{STEM}.cdx.json", "SHA256SUMS"}
    assert set(files) == names
    again = build(folder / "second", 0o077)
    assert [name for name in names if files[name] != again[name]] == []
    sums = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(names) if name != "SHA256SUMS"
    )
    assert files["SHA256SUMS"].decode() == sums


def test_the_wheel_takes_one_name_in_site_packages_and_the_tested_versions_of_its_packages(files, folder):
    with zipfile.ZipFile(folder / "first" / WHEEL) as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist()}
        metadata = message_from_bytes(wheel.read(f"{STEM}.dist-info/METADATA"))
    assert tops == {"openrouter_gateway", f"{STEM}.dist-info"}
    assert metadata["Version"] == VERSION
    pinned, traces = (
        re.findall(r"^([a-z0-9._-]+==[\w.]+)", (ROOT / name).read_text(), re.MULTILINE)
        for name in ("requirements.txt", "requirements-traces.txt")
    )
    needed = metadata.get_all("Requires-Dist")
    of_traces = [line for line in needed if "extra == 'traces'" in line]
    assert [line.partition(";")[0].strip() for line in needed if line not in of_traces] == sorted(pinned)
    assert [line.partition(";")[0].strip() for line in of_traces] == sorted(set(traces) - set(pinned))
    assert "opentelemetry-sdk" in str(of_traces)


def test_the_image_context_holds_what_the_dockerfile_copies_and_nothing_else(files, folder):
    with tarfile.open(folder / "first" / f"{STEM}-image.tar.gz") as archive:
        names = {name.partition("/")[0] for name in archive.getnames()}
    assert names == {path.name for source in copied() for path in ROOT.glob(source)} | {"Dockerfile", ".dockerignore"}


def test_the_bill_of_materials_names_every_package_with_its_hashes(files):
    bill = json.loads(files[f"{STEM}.cdx.json"])
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    named = {f"{one['name']}=={one['version']}" for one in bill["components"]}
    text = (ROOT / "requirements.txt").read_text()
    assert named == set(re.findall(r"^([a-z0-9._-]+==[\w.]+)", text, re.MULTILINE))
    hashes = {one["content"] for component in bill["components"] for one in component["hashes"]}
    assert hashes == set(re.findall(r"sha256:(\w+)", text))


def test_a_version_younger_than_a_week_is_not_taken():
    locking = [line for line in (ROOT / "Makefile").read_text().splitlines() if "uv pip compile" in line]
    assert locking
    assert all("$(LOCK)" in line for line in locking)
    assert re.search(r'^LOCK := .*--exclude-newer "7 days"', (ROOT / "Makefile").read_text(), re.MULTILINE)


# ── without a clone


@pytest.fixture(scope="module")
def command(files: dict[str, bytes], folder: Path) -> Path:
    """The command, installed from the wheel; the packages that it needs are those of the tests."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, folder / "first" / WHEEL], check=True)
    (packages / "tests.pth").write_text(sysconfig.get_paths()["purelib"])
    return venv / "bin/openrouter-gateway"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "empty").mkdir()
    yield tmp_path / "empty"
    assert list((tmp_path / "empty").iterdir()) == [], "something was left in the folder it was started from"


def settings(folder: Path, **more: object) -> dict[str, str]:
    found = environment(HOME=folder.parent, POOL_SIZE=2, **more)
    del found["ENV_FILE"]
    return found


def installed_files(command: Path) -> set[Path]:
    [package] = command.parents[1].glob("lib/python*/site-packages/openrouter_gateway")
    return {path for path in package.rglob("*") if "__pycache__" not in path.parts}


def test_one_line_without_a_clone_answers_a_streamed_call(command, empty, tmp_path):
    before = installed_files(command)
    output = tmp_path / "output"
    with output.open("wb") as file:
        # Who runs the tests in the background makes them deaf to Ctrl-C, and whom they start.
        process = subprocess.Popen(
            ["env", "--default-signal=INT", command],
            cwd=empty,
            env=settings(empty, PORT=free_port()),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:

        def to_try() -> list[str] | None:
            assert process.poll() is None, output.read_text()
            lines = re.findall(r"^(?:curl|TOKEN=).*", output.read_text(), re.MULTILINE)
            return lines if len(lines) == 3 else None

        script = "\n".join(wait_for(to_try))
        said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
        assert "data: [DONE]" in said, said
        [url] = re.findall(r"Serving at (\S+):", output.read_text())
        assert requests.get(f"{url}/api/health", timeout=30).json()["version"] == VERSION
        for path in ("/", "/login", "/static/pages.css"):
            assert requests.get(url + path, timeout=30).status_code == 200, path
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert (tmp_path / ".local/share/openrouter-gateway/data/stand-in/openrouter_proxy.db").exists()
    assert installed_files(command) == before, "something was written beside the code"


def test_its_other_commands_are_the_projects_programs(command, empty):
    def run(*options: str, **more: object) -> subprocess.CompletedProcess[str]:
        kept = settings(empty, **more)
        return subprocess.run(
            [command, *options], cwd=empty, env=kept, check=False, capture_output=True, text=True, timeout=60
        )

    assert run("--version").stdout == f"openrouter-gateway {VERSION}\n"
    assert "openrouter-gateway serve" in run("--help").stdout
    assert "SERVER" in run("serve", SERVER="apache").stderr
    assert "OPENROUTER_PROVISION_KEY: is missing" in run("rotation", "--once").stderr
    assert run("users", "list", "--json").returncode == 0
    assert (empty.parent / ".local/share/openrouter-gateway/data/openrouter_proxy.db").exists()


def test_a_folder_that_has_settings_or_data_is_its_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert home(tmp_path) == Path("/somewhere/openrouter-gateway")
    (tmp_path / ".env").touch()
    assert home(tmp_path) == tmp_path
