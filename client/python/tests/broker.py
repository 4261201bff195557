"""Runs a `tokencached` on free ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Optional

#: Far more seconds than anything takes that is not meant to be waited for.
PATIENCE = 60.0

_CONFIGURATION = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
insecure_allow_any_caller = true
[store]
url = "memory:"
[credentials.ci]
provider = "oauth2"
grant = "client_credentials"
token_url = "{idp}/token"
client_id = "ci"
client_secret = {{ env = "CI_SECRET" }}
[credentials.static]
provider = "fixed"
token = {{ env = "STATIC_TOKEN" }}
token_type = "Session"
[credentials.lost]
provider = "oauth2"
grant = "client_credentials"
token_url = "{idp}/refuse"
client_id = "ci"
client_secret = {{ env = "CI_SECRET" }}
"""


class Broker:
    """A broker that serves until the end of the ``with`` block."""

    def __init__(self, program: Path, directory: Path, idp: str, listen: str = "127.0.0.1:0") -> None:
        self._program = program
        self._directory = directory
        configuration = _CONFIGURATION.format(idp=idp).replace('listen = "127.0.0.1:0"', f'listen = "{listen}"', 1)
        (directory / "tokencached.toml").write_text(configuration)
        self._log = directory / "log"
        self.start()

        self._place: Optional[socket.socket] = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
        environment.update(CI_SECRET="ci-secret", STATIC_TOKEN="static-token")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [self._program, "serve", "--config", "tokencached.toml"],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: self._address("metrics and health") is not None and self._serves(), self._must_run)
        except BaseException:
            self.kill()
            raise
        self.endpoint = f"http://{self._address('the client API')}"

    def kill(self) -> None:
        """End the broker at once, as kill -9 does. Nobody else gets its port before the end of the ``with`` block."""
        self.process.kill()
        self.process.wait()
        address = self._address("the client API") or ""
        if self._place is None and address.startswith("127."):
            # Bound and not listening: who connects is refused, and a broker that is given this port can still take it.
            self._place = hold(int(address.rpartition(":")[2]))

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.kill()
        if self._place is not None:
            self._place.close()

    def _address(self, what: str) -> Optional[str]:
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if str(entry.get("message", "")).startswith(f"listening: {what}"):
                return str(entry["address"])
        return None

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address('metrics and health')}/readyz") as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _must_run(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"the broker ended:\n{self._log.read_text(errors='replace')}")


def hold(port: int = 0) -> socket.socket:
    """Take a port, at which who connects is refused."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    return taken


def until(holds, check=lambda: None) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        check()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
