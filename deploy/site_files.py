"""What is on the site: every document of the project, at its path in the repository, so that links need no change.

mkdocs by itself knows only docs/; its documents link to others, to code and to measurements beside it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/*.md", "docs/decisions/*.md", "clients/*/README.md", "deploy/*/README.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The documents, what they link to, and the theme's own files."""
    documents = [path for pattern in PATTERNS for path in ROOT.glob(pattern)]
    wanted = {*documents, *(target for document in documents for target in linked_files(document))}
    own = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in sorted(wanted)]
    themes = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*themes, *own])


def linked_files(document: Path) -> list[Path]:
    """The files of the project that a document links to. What does not exist is left for mkdocs to report."""
    targets = re.findall(r"\]\(([^)\s#:]+)", document.read_text())
    paths = [Path(os.path.normpath(document.parent / target)) for target in targets]
    return [path for path in paths if path.is_file()]
