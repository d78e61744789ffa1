"""The command `openrouter-gateway` of the wheel: the project's programs, run where they were installed.

The project's rooms (billing, config and so on) would be in the way of others at the top of site-packages. They lie in
this package, as in a folder, and only programs that start here look for them there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
USAGE = """openrouter-gateway: a gateway between your app and OpenRouter.

  openrouter-gateway             try it: everything at once, with a stand-in for OpenRouter if no key is set
  openrouter-gateway serve       the server alone, as `python app.py`
  openrouter-gateway rotation    the background service, as `python key_rotation.py`; takes its options
  openrouter-gateway COMMAND     an operator's command, as `flask --app app COMMAND`: check, users, pool, ...
  openrouter-gateway --version

Settings come from the environment and from .env in this folder. Data goes to this folder if it has .env or data/,
else to ~/.local/share/openrouter-gateway.
"""


def main() -> int:
    """The command line. Returns the exit code, unless it becomes another program."""
    sys.path.insert(0, str(HERE))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in {"-h", "--help", "help"}:
        sys.stdout.write(USAGE)
        return 0
    if name == "--version":
        from config.version import VERSION

        sys.stdout.write(f"openrouter-gateway {VERSION}\n")
        return 0
    os.environ.setdefault("GATEWAY_HOME", str(home(Path.cwd())))
    if name:
        become(name, sys.argv[2:])
    from sandbox.launch import main as launch

    return launch(("1/2", "2/2"))


def become(name: str, options: list[str]) -> NoReturn:
    """Go on as one of the project's programs, or as Flask's command line."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    flask = ["-m", "flask", "--app", str(HERE / "app.py"), name, *options]
    programs = {"serve": [str(HERE / "app.py")], "rotation": [str(HERE / "key_rotation.py"), *options]}
    os.execv(sys.executable, [sys.executable, *programs.get(name, flask)])


def home(folder: Path) -> Path:
    """Where `.env` and data are: in this folder if it has them, else where this user's programs keep theirs."""
    if (folder / ".env").exists() or (folder / "data").is_dir():
        return folder
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "openrouter-gateway"
