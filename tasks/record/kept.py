"""What has been measured, kept as it comes: a JSON file under the home that outlives whoever was killed."""

import json
from pathlib import Path
from time import monotonic
from typing import Any

from tasks.record import home

KEPT_EVERY = 30.0  # seconds; what a kill can cost


class Kept(dict[str, Any]):
    """JSON values by name with those in the file, into which new ones go every KEPT_EVERY seconds, and with `keep`.

    What is read again is as JSON has it: a tuple has become a list.
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
            home.write_file(self.path, json.dumps(self._stored() | self).encode())
        self._kept, self._at = len(self), monotonic()

    def _stored(self) -> dict[str, Any]:
        return json.loads(self.path.read_bytes()) if self.path.is_file() else {}
