"""Simulated people at work: they take the next task and send in their label, through the services everybody uses."""

from __future__ import annotations

import random
import time
from uuid import UUID, uuid5

from annotations.models import Lease, Response, Task
from annotations.services.labels import submit_demonstration, submit_ranking
from annotations.services.leases import lease_next, skip
from webapp.demo.annotators import ANNOTATORS, Annotator
from webapp.demo.people import sample_user
from webapp.demo.round import Round
from webapp.demo.rubric import gold_score
from webapp.demo.world.crowd import WRITERS, Writer, written_reply

TOKENS = UUID("0b1c1c0e-6a53-5a0e-9a2e-6a3f3f1d2c77")  # names the tokens of simulated labels
GAP_TO_STRENGTH = 3.0  # rubric points for each unit of stated strength


def work(round_: Round, kind: Task.Kind, seconds: float) -> bool:
    """Let everybody label in turn for a while; true when no task of the kind is left for anybody."""
    people = {annotator.name: sample_user(annotator.name) for annotator in ANNOTATORS}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        busy = False
        for annotator, writer in zip(ANNOTATORS, WRITERS, strict=True):
            lease = lease_next(person=people[annotator.name], project=round_.project, kinds=[kind])
            if lease is not None:
                busy = True
                rank_replies(round_, lease, annotator) if kind == Task.Kind.RANK else write(round_, lease, writer)
        if not busy:
            return True
    return False


def dice(round_: Round, lease: Lease, name: str) -> random.Random:
    """Random numbers that depend on the seed, the person and the prompt only."""
    return random.Random(f"{round_.demo.seed}:{name}:{lease.task.prompt.digest}")


def token(lease: Lease) -> UUID:
    """The same when a killed worker sends the label again."""
    return uuid5(TOKENS, f"{lease.task_id}:{lease.person_id}")


def rank_replies(round_: Round, lease: Lease, annotator: Annotator) -> None:
    """Order the replies as this person sees them."""
    case = round_.case(lease.task.prompt)
    if case is None:
        skip(lease=lease, reason="I know nothing about this.")
        return
    rng = dice(round_, lease, annotator.name)
    texts = dict(Response.objects.filter(pk__in=lease.order_shown).values_list("pk", "text"))
    ids = sorted(texts, key=lambda pk: (texts[pk], pk))
    scores = [gold_score(case, texts[pk]) for pk in ids]
    groups = annotator.rank(scores, rng)
    gap = scores[groups[0][0]] - scores[groups[-1][0]]
    submit_ranking(
        lease=lease,
        token=token(lease),
        groups=[[ids[i] for i in group] for group in groups],
        strength=min(3.0, round(abs(gap) / GAP_TO_STRENGTH, 1)) if len(groups) > 1 else None,
        active_seconds=round(rng.uniform(8, 40), 1),
    )


def write(round_: Round, lease: Lease, writer: Writer) -> None:
    """Write a reply as this person would."""
    case = round_.case(lease.task.prompt)
    if case is None:
        skip(lease=lease, reason="I know nothing about this.")
        return
    rng = dice(round_, lease, writer.name)
    submit_demonstration(
        lease=lease,
        token=token(lease),
        text=written_reply(case, writer, rng),
        active_seconds=round(rng.uniform(15, 90), 1),
    )
