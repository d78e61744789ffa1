"""`make release`: everything of a version that one gives to others, into dist/, the same bytes each time.

    openrouter_gateway-VERSION-py3-none-any.whl    for pipx and uvx: the command `openrouter-gateway`
    openrouter_gateway-VERSION.tar.gz              the source
    openrouter_gateway-VERSION-image.tar.gz        what `docker build -` takes
    openrouter_gateway-VERSION.cdx.json            what is in it, as CycloneDX
    SHA256SUMS

Times in them are the commit's, or SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
NAME = "openrouter_gateway"
PINNED = re.compile(r"^([\w.-]+)==([^\s;\\]+)([^\n]*(?:\n +--hash=[^\n]+)*)", re.MULTILINE)


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description="Builds a version.")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="FOLDER", help="made anew")
    parser.add_argument("--uncommitted", action="store_true", help="take the files as they are, for a trial")
    asked = parser.parse_args()
    version = re.search(r'^VERSION = "(.+)"', (ROOT / "config/version.py").read_text("utf-8"), re.MULTILINE)
    assert version  # noqa: S101 - a test looks at it
    if fault := why_not(version[1], asked.uncommitted):
        sys.stderr.write(f"{fault}\n")
        return 1
    os.environ.setdefault("SOURCE_DATE_EPOCH", git("log", "-1", "--format=%ct").strip())
    shutil.rmtree(asked.into, ignore_errors=True)
    asked.into.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        export(Path(folder))
        build(Path(folder), asked.into.resolve(), version[1])
    for path in sorted(asked.into.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:>10}  {path}\n")
    return 0


def why_not(version: str, uncommitted: bool) -> str | None:
    """Why this tree is no release, in one line; None if it is."""
    if uncommitted:
        return None
    if git("status", "--porcelain"):
        return "There are changes that are not committed: a release is built of a commit. (--uncommitted for a trial)"
    heading = re.search(rf"^## {re.escape(version)}( |$)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if not heading and ".dev" not in version:
        return f"CHANGELOG.md has no heading `## {version}`: say what is new in it"
    return None


def git(*arguments: str) -> str:
    """What git says. Raises CalledProcessError."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def export(folder: Path) -> None:
    """Copy the project's files, and nothing that lies about beside them."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source = ROOT / name
        if name and source.is_file() and ".venv" not in source.parts:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)


def build(source: Path, into: Path, version: str) -> None:
    """Build everything of the exported project."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(into)], cwd=source, check=True)
    (into / f"{NAME}-{version}-image.tar.gz").write_bytes(image_context(source))
    (into / f"{NAME}-{version}.cdx.json").write_text(bill_of_materials(source, version), "utf-8")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(into.iterdir())]
    (into / "SHA256SUMS").write_text("".join(sums), "utf-8")


def image_context(source: Path) -> bytes:
    """The Dockerfile and what it copies, which .dockerignore names, as a tar."""
    names = re.findall(r"^!(.+)", (source / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    found = [path for name in names for top in source.glob(name) for path in (top, *top.rglob("*")) if path.is_file()]
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted({*found, source / "Dockerfile", source / ".dockerignore"}):
            entry = tarfile.TarInfo(str(path.relative_to(source)))
            entry.size, entry.mtime, entry.mode = path.stat().st_size, int(os.environ["SOURCE_DATE_EPOCH"]), 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return gzip.compress(tarred.getvalue(), mtime=0)


def bill_of_materials(source: Path, version: str) -> str:
    """The program and its packages, each with the hashes that pip holds it to, as CycloneDX."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME}-{version}"))
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    bom.metadata.component = Component(name=NAME, version=version, type=ComponentType.APPLICATION, bom_ref=NAME)
    for name, pinned, more in PINNED.findall((source / "requirements.txt").read_text("utf-8")):
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=one) for one in re.findall(r"sha256:(\w+)", more)]
        purl = PackageURL("pypi", None, name, pinned)
        bom.components.add(Component(name=name, version=pinned, purl=purl, bom_ref=str(purl), hashes=hashes))
    bom.register_dependency(bom.metadata.component, bom.components)
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
