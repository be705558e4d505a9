"""Who is next: replies that wait for a slot of one engine, a queue for each person, and the people take turns."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from training.engine import EngineRequest


class Waiting(Protocol):
    @property
    def request(self) -> EngineRequest: ...

    @property
    def user(self) -> str: ...


W = TypeVar("W", bound=Waiting)


def share_of(user: str, slots: int) -> int:
    """Most slots that one person's replies take: a quarter stays for whoever comes next. Requests that name nobody
    come from the operator's own programs, which may have them all."""
    return slots - slots // 4 if user else slots


class FairQueue(Generic[W]):
    def __init__(self) -> None:
        self._queues: dict[str, deque[W]] = {}  # by person; whose turn it is first

    def __len__(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))

    def push(self, order: W) -> None:
        self._queues.setdefault(order.user, deque()).append(order)

    def pop(self, running: Iterable[W], slots: int) -> W | None:
        """The next order of the first person in turn who has not their share of the slots; None if there is no such
        person. `running`: the orders that have a slot or are promised one."""
        running_by_user = Counter(order.user for order in running)
        if running_by_user.total() >= slots:
            return None
        user = next((user for user in self._queues if running_by_user[user] < share_of(user, slots)), None)
        if user is None:
            return None
        queue = self._queues.pop(user)
        order = queue.popleft()
        if queue:
            self._queues[user] = queue  # behind everybody else
        return order

    def remove(self, request: EngineRequest) -> W | None:
        """Take a request out; none if it does not wait here."""
        for user, queue in self._queues.items():
            for order in queue:
                if order.request is request:
                    queue.remove(order)
                    if not queue:
                        del self._queues[user]
                    return order
        return None
