"""Who may talk to a server on loopback: programs of this machine, and its own interface; no page of another site.

A browser lets any page send requests to 127.0.0.1, and Prefect's server answers all of them: a page that somebody
merely visits could start runs, or have the worker run a command. Browsers say which page asks, in `Origin`; a name that
a page has pointed at 127.0.0.1 stands in `Host`. Programs send no `Origin`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

NAMES = ("127.0.0.1", "localhost")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OnlyFromHere:
    """The ASGI application `app` at `port` of loopback, for requests and web sockets from this machine alone."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in NAMES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self.is_from_here(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"only programs and pages of this machine are answered"})

    def is_from_here(self, scope: Scope) -> bool:
        said = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = said.get(b"origin")
        return said.get(b"host") in self.hosts and (origin is None or urlsplit(origin).netloc in self.hosts)
