"""What has been measured, kept as it comes: a JSON file under the home, with its SHA-256, that outlives a kill."""

import json
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

from tasks.record import home

KEPT_EVERY = 30.0  # seconds; what a kill can cost


class Kept(dict[str, Any]):
    """JSON values by name with those in the file, into which new ones go every KEPT_EVERY seconds, and with `keep`.

    What is read again is as JSON has it: a tuple has become a list. A file that is damaged counts as none: its values
    are measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(self._stored())
        self._kept, self._at = len(self), monotonic()

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if monotonic() - self._at >= KEPT_EVERY:
            self.keep()

    def keep(self) -> None:
        """Write what is new, beside what another process has written at the same time."""
        if len(self) > self._kept:
            values = self._stored() | self
            home.write_file(self.path, json.dumps({"sha256": _digest(values), "values": values}).encode())
        self._kept, self._at = len(self), monotonic()

    def _stored(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8", errors="replace"))
            return stored["values"] if stored["sha256"] == _digest(stored["values"]) else {}
        except (ValueError, KeyError, TypeError):  # what is not as `keep` writes it
            return {}


def _digest(values: dict[str, Any]) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()
