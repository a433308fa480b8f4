"""Debian's Chromium without a window, spoken to through pipes: what a page asks for, says, and measures there."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium")
_QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe",
]  # fmt: skip
_SECONDS = 60


class Browser:
    """One tab.

    Attributes:
        requests: The addresses that the page has asked for.
        messages: What it has put on the console, errors and refusals included.
    """

    def __init__(self, to_browser, from_browser):
        self._to, self._from, self._rest, self._number, self._session = to_browser, from_browser, b"", 0, None
        self.requests, self.messages, self._events = [], [], []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{part}.enable")

    def open(self, address, width, scheme):
        """Open a page on a screen of so many pixels, in a "light" or "dark" scheme."""
        self.requests, self.messages = [], []
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self._events = []
        self._call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._take(self._read())

    def value_of(self, expression):
        """What a script of the test, not of the page, finds there."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (found := self._read()).get("id") != self._number:
            self._take(found)
        assert "error" not in found, found
        return found["result"]

    def _take(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.messages.append(parameters)

    def _read(self):
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            data = os.read(self._from, 65536) if ready else b""
            assert data, "the browser says nothing more"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser(folder):
    """A browser whose own files go into a folder; its process ends with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # It reads from file descriptor 3 and writes to 4.
    words = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    process = subprocess.Popen(
        ["bash", "-c", words, "bash", CHROMIUM, *_QUIET, f"--user-data-dir={folder}"],
        pass_fds=(to_browser[0], from_browser[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        os.close(to_browser[1])  # by which it ends
        os.close(from_browser[0])
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
