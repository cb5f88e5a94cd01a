"""Is the hub there? Asked before its client is, whose time-outs take minutes.

tasks.model.load asks and judges in the same way, in its own words: the rooms of data and of models do not know each
other.
"""

import os
import threading
import urllib.error
import urllib.request

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

SECONDS_TO_ANSWER = 3.0
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
PASSING = (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError)  # as the clients raise what may pass
TRY_AGAIN = (408, 429)  # the refusals of HTTP that are about the moment: a time-out, too many requests


def hub_answers() -> bool:
    """Whether anything answers at the hub's address, known after `SECONDS_TO_ANSWER` at the latest.

    False at once in the hub's offline mode, or where HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set.
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

    if constants.HF_HUB_OFFLINE or any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE
    ):
        return False
    asking = threading.Thread(target=ask, daemon=True)  # a look-up of the name alone can outlast any socket's time-out
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    return answered.is_set()


def is_refusal(error: BaseException) -> bool:
    """Whether the hub has said no (absent, gated, private), so that asking again would not help."""
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return answer is not None and 400 <= answer.status_code < 500 and answer.status_code not in TRY_AGAIN
