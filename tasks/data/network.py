"""Is the hub there? Asked before its client is, whose time-outs take minutes."""

import os
import socket
from threading import Thread
from urllib.parse import urlsplit

PATIENCE_S = 3.0
HUB = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def hub_answers() -> bool:
    """True if the hub (or the proxy that leads to it) accepts a connection within three seconds.

    False at once where HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set.
    """
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE):
        return False
    way = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or os.environ.get("HF_ENDPOINT") or HUB
    address = urlsplit(way)
    port = address.port or (80 if address.scheme == "http" else 443)
    answers: list[bool] = []
    # a thread, because looking up a name has no time-out of its own
    probe = Thread(target=lambda: answers.append(_connects(address.hostname or way, port)), daemon=True)
    probe.start()
    probe.join(PATIENCE_S)
    return any(answers)


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True
