"""The double's HTTP side: vLLM's paths over the simulated engine."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from aiohttp import web

from engine_double import bodies, shapes, text
from engine_double.admin import Admin
from engine_double.choosing import Chosen, chosen, from_script, rest_of
from engine_double.configuration import Configuration, Task
from engine_double.engine import Engine
from engine_double.faults import FaultSwitch, Hang, MetricsFault
from engine_double.metrics import EngineMetrics, Identity
from engine_double.recording import UNRECORDED, Recorder
from engine_double.refusals import Body, RefusedError, asking_for, errors_answered, parsed
from engine_double.replies import Delta, FinishedBy, Reply, Script, filler_reply
from engine_double.simulator import Simulator
from engine_double.streams import Spoken, Stream, until_finished
from engine_double.work import FinishReason, Request

MAX_BODY_BYTES = 64 * 1024**2


class Server:
    """One double: its engine, its script and its faults."""

    def __init__(
        self, configuration: Configuration, *, key: str | None = None, recorder: Recorder = UNRECORDED
    ) -> None:
        self._configuration = configuration
        self._recorder = recorder
        self._tokens_in = text.bytes_in if configuration.byte_tokens else text.tokens_in
        self._guards = [asking_for(key)] if key else []
        self._script = Script()
        self._script.add(list(configuration.script))
        self._plans = dict(configuration.plans)
        self._switch = FaultSwitch(configuration.faults)
        identity = Identity(
            model=configuration.model,
            max_model_len=configuration.max_model_len,
            kv_blocks=configuration.kv_blocks,
            block_tokens=configuration.block_tokens,
            prefix_caching=configuration.prefix_caching,
        )
        self._metrics = EngineMetrics(identity)
        simulator = Simulator(configuration.speeds(), configuration.limits())
        self._engine = Engine(simulator, self._metrics, recorder)
        self._engine.set_hanging(self._switch.faults.hang is not Hang.NONE)
        self._numbers = itertools.count(1)
        self._admin = Admin(self._script, self._plans, self._switch, self._engine)

    def application(self) -> web.Application:
        """The routes, with the engine's loop running beside them."""
        application = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[errors_answered, *self._guards]
        )
        if self._configuration.task is Task.GENERATE:
            application.router.add_post("/v1/chat/completions", self._chat)
            application.router.add_post("/v1/completions", self._completion)
            application.router.add_post("/tokenize", self._tokenize)
        else:
            application.router.add_post("/v1/embeddings", self._embed)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/health", self._health)
        application.router.add_get("/version", self._version)
        application.router.add_get("/metrics", self._scrape)
        application.router.add_routes(self._admin.routes())
        application.cleanup_ctx.append(self._engine_loop)
        return application

    async def _engine_loop(self, _application: web.Application) -> AsyncIterator[None]:
        loop = asyncio.create_task(self._engine.run())
        yield
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._accept(request, bodies.ChatRequest)
        prompt = _prompt(body)
        choice = chosen(body, request.headers.get("X-Session-Id", ""), self._script, self._plans)
        return await self._generate(request, body, prompt, choice, chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await self._accept(request, bodies.CompletionRequest)
        prompt = body.prompt if isinstance(body.prompt, str) else "".join(body.prompt)
        choice = from_script(self._script, [prompt]) or Chosen()
        return await self._generate(request, body, text.padded(prompt), choice, chat=False)

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = (await self._accept(request, bodies.AnyTokenizeRequest)).root
        prompt = _prompt(asked) if isinstance(asked, bodies.TokenizeChatRequest) else asked.prompt
        return web.json_response(shapes.tokenized(self._tokens_in(prompt), self._configuration.max_model_len))

    async def _generate(
        self, request: web.Request, body: bodies.Generation, prompt: str, choice: Chosen, *, chat: bool
    ) -> web.StreamResponse:
        await asyncio.sleep(choice.delay_seconds)
        if choice.refused is not None:
            raise choice.refused
        prompt_tokens = self._tokens_in(prompt)
        limit = self._limit(prompt_tokens, body)
        reply = choice.reply
        if reply is None:
            reply = filler_reply(limit if body.ignore_eos else self._configuration.reply_tokens)
        if isinstance(body, bodies.ChatRequest):
            reply = rest_of(reply, body)
        deltas, finished_by = self._cut_to(limit, reply, body, is_forced=choice.is_forced)
        answer = shapes.Answer(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{next(self._numbers):016x}",
            model=self._configuration.model,
            created=int(time.time()),
            chat=chat,
            prompt_tokens=prompt_tokens,
            has_details=self._configuration.prompt_tokens_details,
        )
        work = Request(
            id=answer.id,
            prompt_tokens=prompt_tokens,
            reply_tokens=len(deltas),
            block_keys=text.block_keys(
                prompt + reply.text, self._configuration.block_tokens, body.cache_salt
            ),
            finish_reason=FinishReason.LENGTH if finished_by == "length" else FinishReason.STOP,
        )
        self._recorder.began(prompt, work)
        async with self._engine.request(work) as events:
            if body.stream:
                spoken = Spoken(
                    answer=answer,
                    deltas=deltas,
                    finished_by=finished_by,
                    with_usage=body.wants_usage,
                    with_continuous_usage=body.wants_continuous_usage,
                )
                return await Stream(request, spoken, self._switch.next_stream()).send(events)
            cached = (await until_finished(events)).record.cached_tokens
        return web.json_response(shapes.whole(answer, deltas, finished_by, cached))

    def _cut_to(
        self, limit: int, reply: Reply, body: bodies.Generation, *, is_forced: bool
    ) -> tuple[list[Delta], FinishedBy]:
        """The reply's tokens up to the limit, and why it ends."""
        faults = self._switch.faults
        deltas = reply.deltas(
            argument_characters=faults.argument_characters, interleaved=faults.interleave_calls
        )
        if len(deltas) > limit or (body.ignore_eos and len(deltas) == limit):
            return deltas[:limit], "length"
        return deltas, "tool_calls" if reply.tool_calls and not is_forced else "stop"

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await self._accept(request, bodies.EmbeddingRequest)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        tokens = [max(1, text.tokens_in(one)) for one in inputs]
        for count in tokens:
            self._refuse_long_prompt(count)
        answer_id = f"embd-{next(self._numbers):016x}"
        async with AsyncExitStack() as stack:
            queues = [
                await stack.enter_async_context(
                    self._engine.request(
                        Request(id=f"{answer_id}-{place}", prompt_tokens=count, reply_tokens=0)
                    )
                )
                for place, count in enumerate(tokens)
            ]
            for events in queues:
                await until_finished(events)
        vectors = [text.embedding(one, self._configuration.embedding_dimension) for one in inputs]
        return web.json_response(
            shapes.embeddings(answer_id, self._configuration.model, int(time.time()), vectors, sum(tokens))
        )

    async def _accept(self, request: web.Request, kind: type[Body]) -> Body:
        """Read and record a request; raises when a fault is set for it."""
        raw = await request.read()
        status = self._switch.next_request()
        if status is not None:
            raise RefusedError(
                status,
                "InternalServerError",
                "failed as told",
                retry_after=self._switch.faults.retry_after,
            )
        body = parsed(raw, kind)
        self._admin.remember(request, raw)
        model = self._configuration.model
        if getattr(body, "model", None) not in {None, model}:
            problem = f"The model `{getattr(body, 'model', None)}` does not exist. Valid aliases: {model}."
            raise RefusedError(404, "NotFoundError", problem, "model")
        return body

    def _limit(self, prompt_tokens: int, body: bodies.Generation) -> int:
        """How many tokens the reply may have; refuses a prompt or a limit that exceeds the context."""
        longest = self._configuration.max_model_len
        if body.limit is not None and body.limit > longest:
            raise RefusedError(
                400,
                "BadRequestError",
                f"max_tokens={body.limit} cannot be greater than max_model_len={longest}.",
                "max_tokens",
            )
        self._refuse_long_prompt(prompt_tokens)
        room = longest - prompt_tokens
        if room == 0 or (body.limit is not None and body.limit > room):
            raise _too_long(longest, prompt_tokens)
        if body.limit is not None:
            self._metrics.observe_limit(body.limit)
        return room if body.limit is None else body.limit

    def _refuse_long_prompt(self, prompt_tokens: int) -> None:
        if prompt_tokens > self._configuration.max_model_len:
            raise _too_long(self._configuration.max_model_len, prompt_tokens)

    async def _models(self, _request: web.Request) -> web.Response:
        configuration = self._configuration
        return web.json_response(
            shapes.model_list(configuration.model, int(time.time()), configuration.max_model_len)
        )

    async def _health(self, _request: web.Request) -> web.Response:
        if self._switch.faults.hang is Hang.EVERYTHING:
            await asyncio.Event().wait()
        return web.Response()

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": shapes.FINGERPRINT})

    async def _scrape(self, _request: web.Request) -> web.Response:
        faults = self._switch.faults
        if faults.metrics is MetricsFault.HANG or faults.hang is Hang.EVERYTHING:
            await asyncio.Event().wait()
        if faults.metrics is MetricsFault.ERROR:
            raise RefusedError(500, "InternalServerError", "metrics fail as told")
        rendered = self._admin.frozen_metrics or self._engine.scrape()
        return web.Response(body=rendered, headers={"Content-Type": "text/plain; version=0.0.4"})


def _too_long(longest: int, prompt_tokens: int) -> RefusedError:
    return RefusedError(
        400,
        "BadRequestError",
        f"This model's maximum context length is {longest} tokens. However, your prompt contains at least "
        f"{prompt_tokens} input tokens. Please reduce the length of the input prompt.",
        "input_tokens",
    )


def _prompt(asked: bodies.Conversation) -> str:
    """The prompt of a chat as text."""
    return text.rendered_chat(asked.messages, asked.tools or (), is_continued=asked.continue_final_message)
