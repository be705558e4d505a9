"""The routes of the model server."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from training.contract import TrainingError
from training.engine import PromptTooLong, Request
from training.serve.generation import Generation
from training.serve.metrics import Metrics
from training.serve.pool import ModelPool, Served
from training.serve.protocol import (
    APIError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    LoadBody,
    UnloadBody,
    read_body,
)
from training.serve.replies import Shape
from training.serve.scheduler import Scheduler

MOST_WAITING = 1024


class Server:
    """Handlers of the routes. Everything slow happens elsewhere: generation in the scheduler's thread, loading in a
    thread of its own, and tokenization in one other thread, because tokenizers are not made for several at once."""

    def __init__(self, pool: ModelPool, scheduler: Scheduler) -> None:
        self.pool = pool
        self.scheduler = scheduler
        self.metrics = Metrics(scheduler)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def models(self, _: HTTPRequest) -> Response:
        data = [
            {
                "id": name, "object": "model", "created": served.created, "owned_by": "tutelage", "root": served.path,
                "parent": None, "max_model_len": served.engine.context,
            }
            for name, served in self.pool.names().items()
        ]  # fmt: skip
        return JSONResponse({"object": "list", "data": data})

    async def health(self, _: HTTPRequest) -> Response:
        alive = self.scheduler.is_alive()
        return JSONResponse({"status": "ok" if alive else "failed", "models": self.pool.told()}, 200 if alive else 503)

    async def metrics_text(self, _: HTTPRequest) -> Response:
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def load(self, request: HTTPRequest) -> Response:
        body = await read_body(request, LoadBody)
        try:
            await asyncio.to_thread(self.pool.load, body.lora_name, body.lora_path)
        except TrainingError as error:
            raise APIError(400, error.message, param="lora_path") from error
        return PlainTextResponse(f"Success: {body.lora_name} is served now.")

    async def unload(self, request: HTTPRequest) -> Response:
        body = await read_body(request, UnloadBody)
        if not self.pool.unload(body.lora_name):
            raise self._unknown(body.lora_name)
        return PlainTextResponse(f"Success: {body.lora_name} is served no more.")

    async def chat(self, request: HTTPRequest) -> Response:
        body = await read_body(request, ChatBody)
        served = self._served(body.model)
        if served.chat is None:
            raise APIError(
                400, f"The model `{body.model}` has no chat template; ask it at /v1/completions", param="model"
            )
        if not body.messages[-1].content.strip():
            raise APIError(400, "the last message is empty: there is nothing to reply to", param="messages")
        chat, turns = served.chat, [message.turn() for message in body.messages]
        try:
            prompt = await self._encode(lambda: chat.prompt(turns))
        except TemplateError as error:
            raise APIError(400, f"the model's chat template refuses this: {error}", param="messages") from error
        shape = Shape(True, body.model, served, body.logprobs)
        return await self._answer(request, body, shape, [prompt], body.top_logprobs if body.logprobs else 0)

    async def completions(self, request: HTTPRequest) -> Response:
        body = await read_body(request, CompletionBody)
        served = self._served(body.model)
        asked = body.prompts()
        if not asked or not all(asked):
            raise APIError(400, "the prompt is empty: there is nothing to go on from", param="prompt")
        tokenizer = served.tokenizer
        prompts = await self._encode(lambda: [tokenizer.encode(p) if isinstance(p, str) else p for p in asked])
        shape = Shape(False, body.model, served, body.logprobs is not None)
        return await self._answer(request, body, shape, prompts, body.logprobs or 0)

    async def _answer(
        self, request: HTTPRequest, body: GenerationBody, shape: Shape, prompts: list[list[int]], alternatives: int
    ) -> Response:
        engine = shape.served.engine
        for prompt in prompts:
            if len(prompt) >= engine.context:
                raise APIError.of(PromptTooLong(len(prompt), engine.context))
        if self.scheduler.waiting + len(prompts) * body.n > MOST_WAITING:
            raise APIError(429, f"{MOST_WAITING} requests are waiting already; try again in a moment")
        try:
            sampling = body.sampling(engine.context, shape.served.stop_ids, alternatives)
        except TrainingError as error:
            raise APIError.of(error) from error
        requests = [Request(prompt, params) for prompt in prompts for params in sampling]
        lengths = [len(prompt) for prompt in prompts]
        generation = Generation(self.scheduler, self.metrics, engine, requests, shape, lengths)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(
                generation.events(with_usage=with_usage),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
        return JSONResponse(await generation.whole(request))

    async def _encode(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._encoder, work)

    def _served(self, name: str) -> Served:
        served = self.pool.get(name)
        if served is None:
            raise self._unknown(name)
        return served

    def _unknown(self, name: str) -> APIError:
        return APIError(404, f"The model `{name}` does not exist. Served: {self.pool.told()}.", param="model")


class Gate:
    """Checks the bearer token of /v1/… and counts answers."""

    def __init__(self, app: ASGIApp, token: str, metrics: Metrics) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in PATHS else "other"
                self._metrics.requests.labels(known, message["status"]).inc()
            await send(message)

        given = dict(scope["headers"]).get(b"authorization", b"")
        if self._expected and path.startswith("/v1/") and not hmac.compare_digest(given, self._expected):
            refusal = APIError(401, "this server wants a bearer token, and this is not the one")
            await JSONResponse(refusal.body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, counted)
            return
        await self._app(scope, receive, counted)


async def api_error(_: HTTPRequest, error: Exception) -> Response:
    known = error if isinstance(error, APIError) else APIError(500, "the server failed; its log says why")
    return JSONResponse(known.body, known.status)


async def http_error(_: HTTPRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse(APIError(status, str(getattr(error, "detail", error))).body, status)


async def gone(_: HTTPRequest, __: Exception) -> Response:
    """Nobody reads this: the client left while it was sending."""
    return Response(status_code=499)


PATHS = {
    "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
}  # fmt: skip


def build_app(pool: ModelPool, scheduler: Scheduler, *, token: str = "") -> Starlette:
    """The ASGI application. `scheduler` is started and stopped by the caller."""
    server = Server(pool, scheduler)

    def post(path: str, handler: Callable[[HTTPRequest], Awaitable[Response]]) -> Route:
        return Route(path, handler, methods=["POST"])

    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/metrics", server.metrics_text),
            Route("/v1/models", server.models),
            post("/v1/chat/completions", server.chat),
            post("/v1/completions", server.completions),
            post("/v1/load_lora_adapter", server.load),
            post("/v1/unload_lora_adapter", server.unload),
        ],
        exception_handlers={
            APIError: api_error, HTTPException: http_error, ClientDisconnect: gone, Exception: api_error,
        },
        middleware=[Middleware(Gate, token=token, metrics=server.metrics)],
    )  # fmt: skip
