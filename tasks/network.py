"""Is the hub there? Asked before its clients are, whose time-outs take minutes.

It stands beside the rooms, because those of data and of models both ask and do not know each other.
"""

import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

SECONDS_TO_ANSWER = 3.0
PASSING = (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError)  # as the clients raise what may pass
TRY_AGAIN = (408, 429)  # the refusals of HTTP that are about the moment: a time-out, too many requests


def hub_answers(*offline: str) -> bool:
    """Whether anything answers at the hub's address, known after `SECONDS_TO_ANSWER` at the latest.

    False at once in the hub's offline mode, and where one of the variables `offline` is set: a client may have an
    offline mode of its own, as `datasets` has HF_DATASETS_OFFLINE.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER).close()
        except urllib.error.HTTPError:  # a refusal is an answer
            pass
        except OSError:
            return
        answered.set()

    if constants.HF_HUB_OFFLINE or any(_is_set(name) for name in ("HF_HUB_OFFLINE", *offline)):
        return False
    asking = threading.Thread(target=ask, daemon=True)  # a look-up of the name alone can outlast any socket's time-out
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    return answered.is_set()


@contextmanager
def offline() -> Iterator[None]:
    """The hub's client, and `datasets` where it is imported, in the offline mode that each keeps in a variable."""
    clients = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [client.HF_HUB_OFFLINE for client in clients]
    for client in clients:
        client.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for client, was in zip(clients, before, strict=True):
            client.HF_HUB_OFFLINE = was  # type: ignore[attr-defined]


def is_refusal(error: BaseException) -> bool:
    """Whether the hub has said no (absent, gated, private), so that asking again would not help."""
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return answer is not None and 400 <= answer.status_code < 500 and answer.status_code not in TRY_AGAIN


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
