"""A real browser without a window, led over its DevTools pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import wait_for

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not PROGRAM, reason="needs a browser")


class Chromium:
    """A headless browser with one page."""

    def __init__(self, folder: Path) -> None:
        """folder: its profile, where cookies are."""
        assert PROGRAM
        (commands, self._out), (self._in, events) = os.pipe(), os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
        # It reads commands from file 3 and writes to file 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{events}', "bash", PROGRAM]
        self.process = subprocess.Popen(
            [*shell, *options, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(commands, events),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(events)
        self._answers = os.fdopen(self._in, "rb")
        self._number = 0
        self._session = ""

        def page() -> str:
            targets = self.ask("Target.getTargets")["targetInfos"]
            return next((one["targetId"] for one in targets if one["type"] == "page"), "")

        self._session = self.ask("Target.attachToTarget", targetId=wait_for(page), flatten=True)["sessionId"]

    def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            text = bytearray()
            while (one := self._answers.read(1)) != b"\0":
                assert one, "the browser has ended"
                text += one
            answer = json.loads(text)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """What a script on the page returns; None if it fails, as while the page changes."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return None if "exceptionDetails" in answer else answer["result"].get("value")

    def go(self, url: str) -> None:
        """Type an address."""
        self.ask("Page.navigate", url=url)

    def click(self, selector: str) -> None:
        """Click on the first element of this CSS selector, once it is there."""
        element = f"document.querySelector({json.dumps(selector)})"
        wait_for(lambda: self.run(f"{element} && document.readyState == 'complete'"))
        self.run(f"{element}.click()")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._answers.close()
        os.close(self._out)
