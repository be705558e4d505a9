"""The routes of the model server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from training.contract import TrainingError, Turn
from training.contract.completions import ChatRequest, CompletionRequest, GenerationRequest
from training.data.chat_format import ChatFormat
from training.engine import EngineRequest, PromptTooLong
from training.serve.gate import Gate
from training.serve.generation import Generation
from training.serve.metrics import Metrics
from training.serve.pool import ModelPool, Served
from training.serve.protocol import APIError, LoadBody, TokenizeBody, UnloadBody, read_generation, read_order, sampling
from training.serve.replies import ReplyShape
from training.serve.scheduler import Scheduler

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1024
HEALTH_SECONDS: Final = 1.0
DEFAULT_MAX_TOKENS: Final = 1024
HELLO: Final = [Turn(role="user", content="Hello")]


class Server:
    """Handlers of the routes. Everything slow happens elsewhere: generation in the scheduler's thread, loading in a
    thread of its own, and reading prompts in a thread of each model's."""

    def __init__(self, pool: ModelPool, scheduler: Scheduler, default_max_tokens: int) -> None:
        self.pool = pool
        self.scheduler = scheduler
        self.metrics = Metrics(scheduler, pool.memory)
        self._default_max_tokens = default_max_tokens

    async def models(self, _: HTTPRequest) -> Response:
        data = [described(name, served) for name, served in self.pool.names().items()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        return JSONResponse(described(name, self._served(name)))

    async def health(self, request: HTTPRequest) -> Response:
        """503 where the scheduler has ended, or a model's encoder does not come back from a prompt. The names of models
        are for those who have the token."""
        names = self.pool.names()
        tried = await asyncio.gather(*(encodes(served) for served in names.values()))
        stuck = [name for name, well in zip(names, tried, strict=True) if not well]
        well = self.scheduler.is_alive() and not stuck
        body: dict[str, Any] = {"status": "ok" if well else "failed"}
        if request.scope["has_token"]:
            memory = self.pool.memory
            body |= {"models": self.pool.told(), "stuck": stuck}
            body |= {"kv_cache": {"used_bytes": memory.used, "limit_bytes": memory.limit}}
        return JSONResponse(body, 200 if well else 503)

    async def metrics_text(self, _: HTTPRequest) -> Response:
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def load(self, request: HTTPRequest) -> Response:
        body = await read_order(request, LoadBody)
        try:
            await asyncio.to_thread(self.pool.load, body.lora_name, body.lora_path)
        except TrainingError as error:
            raise APIError(400, error.message, param="lora_path", code="model_unusable") from error
        return PlainTextResponse(f"Success: {body.lora_name} is served now.")

    async def unload(self, request: HTTPRequest) -> Response:
        body = await read_order(request, UnloadBody)
        if not self.pool.unload(body.lora_name):
            raise self._unknown(body.lora_name)
        return PlainTextResponse(f"Success: {body.lora_name} is served no more.")

    async def chat(self, request: HTTPRequest) -> Response:
        body = await read_generation(request, ChatRequest)
        served = self._served(body.model)
        if served.chat is None:
            raise APIError(
                400, f"The model `{body.model}` has no chat template; ask it at /v1/completions", param="model"
            )
        chat = served.chat
        try:
            prompt, folded = await served.encoder.run(lambda: chat_prompt(chat, body.turns()))
        except TrainingError as error:
            raise APIError.of(error) from error
        shape = ReplyShape(True, body.model, served, body.logprobs, folded)
        return await self._answer(request, body, shape, [prompt], body.top_logprobs)

    async def tokenize(self, request: HTTPRequest) -> Response:
        """How many tokens a conversation has, opening of the reply included, and how many the model can hold: what a
        client needs to leave out old turns by itself. The same route and answer as vLLM's."""
        body = await read_order(request, TokenizeBody)
        served = self._served(body.model)
        chat, turns, tokenizer = served.chat, [message.turn() for message in body.messages], served.tokenizer
        if turns and chat is None:
            raise APIError(400, f"The model `{body.model}` has no chat template; give `prompt`", param="messages")
        try:
            tokens = await served.encoder.run(
                lambda: chat_prompt(chat, turns)[0] if turns and chat else tokenizer.encode(body.prompt)
            )
        except TrainingError as error:
            raise APIError.of(error) from error
        return JSONResponse({"count": len(tokens), "max_model_len": served.engine.context, "tokens": tokens})

    async def completions(self, request: HTTPRequest) -> Response:
        body = await read_generation(request, CompletionRequest)
        served = self._served(body.model)
        tokenizer = served.tokenizer
        prompts = await served.encoder.run(
            lambda: [tokenizer.encode(p) if isinstance(p, str) else p for p in body.prompt]
        )
        shape = ReplyShape(False, body.model, served, body.logprobs is not None)
        return await self._answer(request, body, shape, prompts, body.logprobs or 0)

    async def _answer(
        self,
        request: HTTPRequest,
        body: GenerationRequest,
        shape: ReplyShape,
        prompts: list[list[int]],
        alternatives: int,
    ) -> Response:
        engine = shape.served.engine
        for prompt in prompts:
            try:
                engine.check_length(len(prompt))
            except PromptTooLong as error:
                raise APIError.of(error, shape.parameter) from error
        if self.scheduler.waiting + body.replies > MAX_WAITING:
            raise APIError(429, f"{MAX_WAITING} replies are waiting already; try again in a moment")
        params = sampling(body, limit=self._default_max_tokens, stop_ids=shape.served.stop_ids, top=alternatives)
        requests = [EngineRequest(prompt, parameters) for prompt in prompts for parameters in params]
        lengths = [len(prompt) for prompt in prompts]
        generation = Generation(self.scheduler, self.metrics, engine, requests, shape, lengths, body.user)
        if body.stream:
            return StreamingResponse(
                generation.events(with_usage=body.stream_options.include_usage),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
        return JSONResponse(await generation.whole(request))

    def _served(self, name: str) -> Served:
        served = self.pool.get(name)
        if served is None:
            raise self._unknown(name)
        return served

    def _unknown(self, name: str) -> APIError:
        return APIError(
            404, f"The model `{name}` does not exist. Served: {self.pool.told()}.", param="model",
            code="model_not_found",
        )  # fmt: skip


def chat_prompt(chat: ChatFormat, turns: list[Turn]) -> tuple[list[int], bool]:
    """The tokens of a conversation, and whether its system turns had to be folded into user turns."""
    return chat.prompt(turns), chat.folds_system and any(turn.role == "system" for turn in turns)


def described(name: str, served: Served) -> dict[str, Any]:
    return {
        "id": name, "object": "model", "created": served.created, "owned_by": "tutelage", "root": served.path,
        "parent": None, "max_model_len": served.engine.context, "weights": "int8" if served.engine.int8 else "full",
        "takes_system": served.chat is None or not served.chat.folds_system,
    }  # fmt: skip


async def encodes(served: Served) -> bool:
    """Whether the model's encoder reads a prompt, or is at one that it may still be at."""

    def read() -> None:
        if served.chat is not None:
            served.chat.prompt(HELLO)
        else:
            served.tokenizer.encode("Hello")

    try:
        await asyncio.wait_for(served.encoder.run(read), HEALTH_SECONDS)
    except (TimeoutError, APIError):
        return not served.encoder.stuck
    except TrainingError as error:  # the template refuses or takes too long; whoever asks the model sees that
        log.warning("health: %s", error.message)
    return True


async def api_error(_: HTTPRequest, error: Exception) -> Response:
    api_error_of = error if isinstance(error, APIError) else APIError(500, "the server failed; its log says why")
    return JSONResponse(api_error_of.body, api_error_of.status, api_error_of.headers)


async def http_error(request: HTTPRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = {
        404: f"There is no {request.url.path} here.",
        405: f"{request.url.path} does not take {request.method}.",
    }.get(status, str(getattr(error, "detail", error)))
    return JSONResponse(APIError(status, message).body, status, getattr(error, "headers", None))


async def gone(_: HTTPRequest, __: Exception) -> Response:
    """Nobody reads this: the client left while it was sending."""
    return Response(status_code=499)


def build_app(
    pool: ModelPool, scheduler: Scheduler, *, token: str = "", default_max_tokens: int = DEFAULT_MAX_TOKENS
) -> Starlette:
    """The ASGI application. `scheduler` is started and stopped by the caller."""
    server = Server(pool, scheduler, default_max_tokens)

    def post(path: str, handler: Callable[[HTTPRequest], Awaitable[Response]]) -> Route:
        return Route(path, handler, methods=["POST"])

    app = Starlette(
        routes=[
            Route("/health", server.health),
            Route("/metrics", server.metrics_text),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            post("/tokenize", server.tokenize),
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
    app.router.redirect_slashes = False  # a client that is sent elsewhere drops its token, or its body
    return app
