"""`make docs`: the documents as a site, from what lies in the project alone, and no link of theirs leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import ROOT

# Nothing listens there: a build that fetched something would fail.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=project, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)


def test_the_site_is_built_without_the_network_and_its_pages_ask_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path)
    assert (built.returncode, "WARNING" in built.stderr) == (0, False), built.stderr
    pages = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "README.zh.html", "docs/start.html", "docs/decisions/index.html"} <= set(pages)
    fetched = [(name, tag) for name, text in pages.items() for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", text)]
    assert [(name, tag) for name, tag in fetched if re.search(r"(?:src|href)=\"?(?:https?:)?//", tag)] == []


def test_dead_links_dead_anchors_and_documents_without_a_place_are_errors(tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.name not in {"docs", "README.md"}:
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "README.md").write_text(
        (ROOT / "README.md").read_text() + "[gone](docs/gone.md) [moved](docs/billing.md#moved) [folder](docs/)\n"
    )
    (tmp_path / "docs/forgotten.md").write_text("# In no menu\n")
    built = build(tmp_path, tmp_path / "built")
    assert built.returncode == 1
    for fault in ("'docs/gone.md'", "'#moved'", "'docs/'", "docs/forgotten.md"):
        assert fault in built.stderr
