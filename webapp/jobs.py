"""Durable jobs: work that a row in PostgreSQL describes, and that a message only wakes a worker for.

A job is open from the moment somebody asks for it until it ends. A worker claims it, sends heartbeats while it works,
and writes only as long as its claim holds. If the worker dies, its heartbeats stop; a reconciler then takes the claim
away, and the job is claimed again or ends with an error. The same reconciler resends a message that was lost; a message
that comes twice finds nothing to claim.

Runs, imports and sample projects are JobQueues. Replies in chats are Claims only: nobody else can write one further, so
a lost one is not sent for again.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from django.db import DatabaseError, InterfaceError, connection, models, transaction
from django.db.models import QuerySet
from django.utils import timezone
from kombu.exceptions import ChannelError

from webapp import processes
from webapp.celery import app
from webapp.wake import send_task

log = logging.getLogger(__name__)

BEAT_SECONDS = 2.0  # between heartbeats of a worker
SILENCE = timedelta(seconds=45)  # without a heartbeat for this long, a worker counts as dead
RESEND = timedelta(seconds=30)  # a job that nobody claimed is announced again after this long


class ClaimLost(Exception):
    """Somebody else has the job, or it ended; whoever held it must let go without writing anything."""


class Claimable(models.Model):
    """A row that one process at a time may work on."""

    claim = models.UUIDField(null=True, blank=True, help_text="whoever holds it may write; none: nobody works on it")
    claimed_by = models.CharField(max_length=200, blank=True, help_text="the worker's process: host/boot/pid/start")
    heartbeat_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class Job(Claimable):
    """Work that a message wakes a worker for."""

    attempts = models.PositiveSmallIntegerField(default=0, help_text="claims since it last got further")
    woken_at = models.DateTimeField(null=True, blank=True, help_text="when workers were last told of it")

    class Meta:
        abstract = True


C = TypeVar("C", bound=Claimable)
J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Claims(Generic[C]):
    """Who works on the rows of a table. `open_states` are the states in which there is something to do."""

    model: type[C]
    open_states: tuple[str, ...]

    @property
    def rows(self) -> QuerySet[C]:
        return self.model._default_manager.filter(state__in=self.open_states)

    @transaction.atomic
    def claim(self, pk: int, *, worker: str = "", **values: Any) -> C | None:
        """Take a free row for the process `worker` (this one, unless another is named) and set `values` with it. None
        if there is nothing to take: it has ended, or somebody works on it."""
        row = self.rows.select_for_update(of=("self",), skip_locked=True).filter(pk=pk, claim=None).first()
        if row is None:
            return None
        values |= {"claim": uuid.uuid4(), "claimed_by": worker or processes.identity(), "heartbeat_at": timezone.now()}
        if isinstance(row, Job):
            values["attempts"] = row.attempts + 1
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=list(values))
        return row

    def held(self, row: C) -> QuerySet[C]:
        """The row while this claim on it holds; empty afterward."""
        return self.rows.filter(pk=row.pk, claim=row.claim).exclude(claim=None)

    def update(self, row: C, **values: Any) -> None:
        """Write to a row that is ours. Raises ClaimLost."""
        if not self.held(row).update(**values):
            raise ClaimLost
        for name, value in values.items():
            setattr(row, name, value)

    def beat(self, row: C) -> None:
        """Send a heartbeat. Raises ClaimLost."""
        self.update(row, heartbeat_at=timezone.now())

    def release(self, row: C, **values: Any) -> None:
        """Give the row back, so that another worker can claim it. Raises ClaimLost."""
        self.update(row, claim=None, claimed_by="", heartbeat_at=None, **values)

    def end(self, row: C, **values: Any) -> None:
        """Write how it ended, the new state among `values`. Raises ClaimLost."""
        self.update(row, claim=None, **values)

    def take_back(
        self, on_lost: Callable[[C], None], *, now: datetime, silence: timedelta = SILENCE, **among: Any
    ) -> int:
        """Call `on_lost` for each row whose worker is gone, in a transaction that locks it; how many there were.
        `among` filters the rows to look at."""
        lost = 0
        claimed = self.rows.exclude(claim=None).filter(**among).order_by("pk")
        for silent in claimed.only("claim", "claimed_by", "heartbeat_at"):
            if worker_lives(silent, now - silence):
                continue
            with transaction.atomic():
                row = self.rows.select_for_update(of=("self",), skip_locked=True).filter(pk=silent.pk).first()
                if row is not None and row.claim == silent.claim and not worker_lives(row, now - silence):
                    on_lost(row)
                    lost += 1
        return lost


def worker_lives(row: Claimable, since: datetime) -> bool:
    """Whether its worker sent a heartbeat since then. One of this machine is looked up, so that its death is known at
    once."""
    if processes.is_here(row.claimed_by) and not processes.is_alive(row.claimed_by):
        return False
    return row.heartbeat_at is not None and row.heartbeat_at > since


@dataclass(frozen=True)
class JobQueue(Claims[J]):
    """Jobs that a Celery task works on. `task` takes a job's primary key."""

    task: str
    celery_queue: str | None = None

    def wake(self, job: J, *, countdown: float | None = None) -> None:
        """Tell a worker of a job once this transaction is done."""
        self.model._default_manager.filter(pk=job.pk).update(woken_at=timezone.now())
        transaction.on_commit(lambda: self.send(job.pk, countdown=countdown))

    def send(self, pk: int, **options: Any) -> bool:
        """Send the message. False if the broker does not answer: the job waits in the database."""
        return send_task(self.task, pk, queue=self.celery_queue, **options)

    def announce(self, *, now: datetime) -> int:
        """Send for jobs that nobody claimed, unless there are messages enough on the way; how many were sent."""
        free = self.rows.filter(claim=None)
        silent = list(free.exclude(woken_at__gt=now - RESEND).order_by("pk").values_list("pk", flat=True))
        if not silent or (self.celery_queue and messages_on(self.celery_queue) >= free.count()):
            return 0
        self.model._default_manager.filter(pk__in=silent).update(woken_at=now)
        # Messages on a shared queue cannot be counted, so each expires when the next one is due.
        options = {} if self.celery_queue else {"expires": RESEND.total_seconds()}
        return sum(self.send(pk, **options) for pk in silent)


def messages_on(queue: str) -> int:
    """How many messages wait on a Celery queue."""
    with app.connection_for_write() as broker:
        try:
            channel: Any = broker.default_channel
            return int(channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            return 0  # the queue does not exist: no message was ever sent


class Heartbeat(Generic[C]):
    """Sends heartbeats from a thread of its own, so that no long step of a worker makes it look dead.

    `lost` is set when another worker has the job, `stop` when a person asked to stop it (`stop_requested_at`).
    """

    def __init__(self, claims: Claims[C], row: C) -> None:
        self.claims, self.row = claims, claims.model(pk=row.pk, claim=row.claim)
        self.stop, self.lost, self._done = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send, name=f"heartbeat of {claims.model.__name__} {row.pk}")
        self._thread.daemon = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def stop_requested(self) -> bool:
        return self.stop.is_set() or self.claims.rows.filter(pk=self.row.pk).exclude(stop_requested_at=None).exists()

    def _send(self) -> None:
        can_stop = any(field.name == "stop_requested_at" for field in self.claims.model._meta.fields)
        try:
            while not self.lost.is_set():
                try:
                    self.claims.beat(self.row)
                    if can_stop and self.stop_requested():
                        self.stop.set()
                except ClaimLost:
                    self.lost.set()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("%s: no heartbeat, the database does not answer: %s", self._thread.name, error)
                    connection.close()
                if self._done.wait(BEAT_SECONDS):
                    return
        finally:
            connection.close()
