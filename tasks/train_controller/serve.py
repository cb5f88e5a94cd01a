"""A resident model behind OpenAI's interface, on loopback: completions and chat, whole or streamed.

One thread answers, in order (`service.line`); the event loop only reads requests and sends replies. Stopping is
graceful: what is being answered is answered to its end, what waits is refused by 503, then the port is free. A client
that sends half a request or reads half a reply holds up neither: a body has `BODY_S` to come, and what is not sent
`STOP_S` after the stop began is cut off.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from time import perf_counter, time
from typing import TYPE_CHECKING, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from tasks.train_controller.act.answers import Answer
from tasks.train_controller.service.chat import ChatTemplate
from tasks.train_controller.service.line import Left, Line, Turn
from tasks.train_controller.service.metrics import Counted, Metrics
from tasks.train_controller.service.refusal import Refused
from tasks.train_controller.service.reply import DONE, ChatReply, CompletionReply, Reply, event
from tasks.train_controller.service.request import Asked, Body, parse_body, read_chat, read_completion

if TYPE_CHECKING:
    from tasks.train_controller.runtime import Controller

LOOPBACK = "127.0.0.1"
MOST_BYTES = 1 << 20  # of a request's body
BODY_S = 30.0  # for the whole of it to come
STOP_S = 60  # for replies under way to end, less than service managers wait before they kill
JSON_TYPE = "application/json"
CLIENT_GONE = 499  # nobody reads it; as nginx counts such requests

Item = TypeVar("Item")


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 is any that is free. Raises ValueError for a port that is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        raise ValueError(f"port: {port} cannot be had ({error.strerror}), valid is a free one") from error
    return listening


class Service:
    """The model `name` that `controller` holds; beside the one being answered, `queue` questions may wait.

    `most_tokens`: of one answer.
    """

    def __init__(self, controller: "Controller", name: str, *, queue: int = 8, most_tokens: int = 512) -> None:
        self.name, self.most_tokens, self.started = name, most_tokens, int(time())
        self.template = ChatTemplate(controller.tokenizer)
        self.line: Line[Answer] = Line(lambda question: controller.stream(**asdict(question)), queue)
        self.metrics = Metrics(lambda: self.line.waiting)
        self._watches: set[asyncio.Task[None]] = set()
        config = uvicorn.Config(
            self._app(),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Graceful(config, self.line)

    def run(self, listening: socket.socket, on_ready: Callable[[], None]) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; a second SIGINT does not wait for the answer being written.

        `on_ready` is called once it answers.

        uvicorn raises these signals again at the end, KeyboardInterrupt by default.
        """
        self._server.on_ready = on_ready
        try:
            self._server.run(sockets=[listening])
        finally:
            self.line.end()

    def stop(self) -> None:
        """From any thread: begin to stop."""
        self._server.should_exit = True

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.get("/health")(self.health)
        app.get("/metrics")(self.counts)
        app.get("/v1/models")(self.models)
        app.post("/v1/completions")(self.complete)
        app.post("/v1/chat/completions")(self.chat)
        paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])  # no page in a browser
        app.add_middleware(Counted, metrics=self.metrics, endpoints=paths)
        app.add_exception_handler(Refused, _refuse)
        app.add_exception_handler(HTTPException, _no_such_place)
        app.add_exception_handler(Left, _gone)
        app.add_exception_handler(ClientDisconnect, _gone)
        app.add_exception_handler(Exception, _broken)
        return app

    async def health(self) -> Response:
        state = "stopping" if self.line.closed else "ok"
        body = {"status": state, "model": self.name, "waiting": self.line.waiting}
        return JSONResponse(body, 503 if self.line.closed else 200)

    async def counts(self) -> Response:
        return Response(self.metrics.text(), headers={"Content-Type": self.metrics.content_type})

    async def models(self) -> Response:
        model = {"id": self.name, "object": "model", "created": self.started, "owned_by": "espalier"}
        return JSONResponse({"object": "list", "data": [model]})

    async def complete(self, request: Request) -> Response:
        asked = read_completion(await _read(request), self.name, self.most_tokens)
        return await self._answer(request, asked, CompletionReply(asked, self.name))

    async def chat(self, request: Request) -> Response:
        asked = read_chat(await _read(request), self.name, self.most_tokens, self.template)
        return await self._answer(request, asked, ChatReply(asked, self.name))

    async def _answer(self, request: Request, asked: Asked, reply: Reply) -> Response:
        """Once there is a first token: what is refused after some waiting has a status of its own even so."""
        since, turn = perf_counter(), self.line.enter(asked.question)
        self._leave_with(request, turn)
        events = turn.events()
        answering = self._noted(_from(await anext(events), events), since)
        if asked.stream:
            return StreamingResponse(self._sent(turn, answering, reply), media_type="text/event-stream")
        *_, answer = [each async for each in answering]
        assert isinstance(answer, Answer)
        return JSONResponse(reply.whole(answer))

    async def _noted(self, events: AsyncIterator[str | Answer], since: float) -> AsyncIterator[str | Answer]:
        async for each in events:
            if isinstance(each, Answer):
                self.metrics.answered(each, perf_counter() - since)
            yield each

    async def _sent(self, turn: Turn[Answer], events: AsyncIterator[str | Answer], reply: Reply) -> AsyncIterator[str]:
        try:
            for chunk in reply.begin():
                yield event(chunk)
            async for each in events:
                if each == "":  # of a token that gives no text yet
                    continue
                for chunk in [reply.piece(each)] if isinstance(each, str) else reply.end(each):
                    yield event(chunk)
            yield DONE
        except Refused as refusal:  # too late for a status of its own
            yield event(refusal.body)
        except Left:
            return
        finally:
            self.line.leave(turn)

    def _leave_with(self, request: Request, turn: Turn[Answer]) -> None:
        """Give the place up as soon as the client closes the connection, or has its reply."""

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.line.leave(turn)

        watching = asyncio.create_task(watch())
        self._watches.add(watching)  # the loop itself holds tasks weakly
        watching.add_done_callback(self._watches.discard)


class _Graceful(uvicorn.Server):
    """Closes the line before it waits for the replies that are under way, unless it must not wait."""

    on_ready: Callable[[], None]

    def __init__(self, config: uvicorn.Config, line: Line[Answer]) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._line.close()
        await super().shutdown(sockets)
        self._line.end()  # while there is a loop that can be told


async def _read(request: Request) -> Body:
    """The body of a request. Raises `Refused`: 408 for a slow one, 413 for a long one, 415 and 400 for no JSON."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != JSON_TYPE:
        raise Refused(415, f"content-type: {given!r} given, valid is {JSON_TYPE}", field="content-type")
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                text += part
                if len(text) > MOST_BYTES:
                    raise Refused(413, f"body: more than {MOST_BYTES} bytes given, valid is at most that", unread=True)
    except TimeoutError as error:
        message = f"body: {len(text)} bytes given in {BODY_S:g} s, valid is all of it in that time"
        raise Refused(408, message, unread=True) from error
    return parse_body(bytes(text))


async def _from(first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for each in rest:
        yield each


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, error.headers)


async def _no_such_place(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(refusal.body, refusal.status, error.headers)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _broken(_: Request, error: Exception) -> Response:
    """Then uvicorn logs the error whole."""
    return JSONResponse(Refused(500, "the service failed, its log says why").body, 500)
