"""What the service refuses, in the shape of OpenAI's errors: https://platform.openai.com/docs/guides/error-codes."""

from typing import Any

RATE, REQUEST, SERVER = "rate_limit_error", "invalid_request_error", "server_error"


class Refused(Exception):  # noqa: N818
    """A request that gets no answer: a status of HTTP, one line that says why, and the field it is about.

    `retry_after`: whole seconds after which the same request may be tried again. `unread`: the rest of the request is
    not read, so the connection closes.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        unread: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, _sendable(message), field and _sendable(field)
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.headers |= {"Connection": "close"} if unread else {}

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`."""
        kind = RATE if self.status == 429 else REQUEST if self.status < 500 else SERVER
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": None}}


def check_unicode(text: str, field: str) -> None:
    """Raises `Refused`, 400, for a text with half a character of UTF-16, as JSON may have it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"{field}: a lone surrogate given, valid is Unicode", field=field) from error


def refused(error: ValueError) -> Refused:
    """400 for a mistake that was found late; one line of this project begins with the field it is about."""
    field, colon, _ = str(error).partition(":")
    return Refused(400, str(error), field=field if colon and field.isidentifier() else None)


def _sendable(text: str) -> str:
    """With lone surrogates, which a name of a field may have too, as `\\udc80`: no reply can carry them as they are."""
    return text.encode(errors="backslashreplace").decode()
