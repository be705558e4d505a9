"""One thread for all engines: it takes orders between decoding steps and reports back to the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from training.contract import TrainingError
from training.engine import Completion, Delta, Engine, EngineRequest
from training.serve.fair import FairQueue

RATE_WINDOW = 10.0  # seconds


@dataclass(eq=False)
class Order:
    """A request for an engine and where its news go; both callbacks run on the event loop `loop`. `user` is the person
    whose request it is, as far as the caller says."""

    engine: Engine
    request: EngineRequest
    loop: asyncio.AbstractEventLoop
    on_end: Callable[[Completion | TrainingError], None]
    user: str = ""


class Scheduler(threading.Thread):
    """Steps the engines that have work, in turn. Engines are touched by this thread alone.

    An engine is given no more requests than it has slots; the others wait here, where the people they come from take
    turns.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name="scheduler", daemon=True)
        self._clock = clock
        self._wake = threading.Condition()
        self._orders: deque[Callable[[], None]] = deque()
        self._running: dict[Engine, dict[EngineRequest, Order]] = {}
        self._queues: dict[Engine, FairQueue[Order]] = {}  # of the same engines
        self._news: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._stopping = False
        self._pace: deque[tuple[float, int]] = deque()
        self.tokens = 0

    # ------------------------------------------------------------------------------------------- from the event loop

    def submit(
        self,
        engine: Engine,
        request: EngineRequest,
        on_end: Callable[[Completion | TrainingError], None],
        on_delta: Callable[[Delta], None] | None = None,
        user: str = "",
    ) -> None:
        """Start a request. `on_delta` and then `on_end` are called on the running event loop."""
        order = Order(engine, request, asyncio.get_running_loop(), on_end, user)
        if on_delta is not None:
            request.on_delta = lambda delta: self._news.append((order.loop, lambda: on_delta(delta)))
        self._tell(lambda: self._begin(order))

    def cancel(self, engine: Engine, request: EngineRequest) -> None:
        self._tell(lambda: self._cancel(engine, request))

    def stop(self) -> None:
        """End the thread after the step under way."""
        self._stopping = True
        self._tell(lambda: None)
        self.join()

    @property
    def running(self) -> int:
        return sum(engine.running for engine in list(self._running))

    @property
    def waiting(self) -> int:
        queued = sum(len(queue) for queue in list(self._queues.values()))
        return sum(engine.waiting for engine in list(self._running)) + queued + len(self._orders)

    def rate(self) -> float:
        """Tokens per second over the last ten seconds."""
        since = self._clock() - RATE_WINDOW
        return sum(tokens for when, tokens in list(self._pace) if when >= since) / RATE_WINDOW

    # -------------------------------------------------------------------------------------------------- in the thread

    def run(self) -> None:
        while not self._stopping:
            with self._wake:
                self._wake.wait_for(lambda: self._orders or self._stopping or self._running)
            while self._orders:
                self._orders.popleft()()
            for engine in list(self._running):
                self._step(engine)
            self._deliver()

    def _tell(self, order: Callable[[], None]) -> None:
        with self._wake:
            self._orders.append(order)
            self._wake.notify()

    def _begin(self, order: Order) -> None:
        self._running.setdefault(order.engine, {})
        self._queues.setdefault(order.engine, FairQueue()).push(order)

    def _cancel(self, engine: Engine, request: EngineRequest) -> None:
        queue = self._queues.get(engine)
        if queue is not None and (order := queue.remove(request)):
            self._end(order, Completion([], [], "", "cancelled"))
        else:
            engine.cancel(request)

    def _admit(self, engine: Engine) -> None:
        """Hand over as many waiting requests as there are slots for them."""
        orders, queue = self._running[engine], self._queues[engine]
        while order := queue.pop(orders.values(), engine.slots):
            try:
                engine.submit(order.request)
            except TrainingError as error:
                self._end(order, error)
            else:
                orders[order.request] = order

    def _step(self, engine: Engine) -> None:
        self._admit(engine)
        orders = self._running[engine]
        try:
            done = engine.step()
        except Exception as error:  # noqa: BLE001 - one model's failure must not stop the others; its callers are told
            failure = error if isinstance(error, TrainingError) else TrainingError(f"generation failed: {error}")
            for order in orders.values():
                self._end(order, failure)
            orders.clear()
        else:
            for request, completion in done:
                self._end(orders.pop(request), completion)
            self._count(len(orders) + len(done))
        if not orders and not self._queues[engine]:
            del self._running[engine], self._queues[engine]

    def _count(self, tokens: int) -> None:
        now = self._clock()
        self.tokens += tokens
        self._pace.append((now, tokens))
        while self._pace and self._pace[0][0] < now - RATE_WINDOW:
            self._pace.popleft()

    def _end(self, order: Order, result: Completion | TrainingError) -> None:
        self._news.append((order.loop, lambda: order.on_end(result)))

    def _deliver(self) -> None:
        """All news of a step cross to the event loop in one call."""
        news, self._news = self._news, []
        by_loop: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        for loop, call in news:
            by_loop.setdefault(loop, []).append(call)
        for loop, calls in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
