"""Writes: judges, and what they are asked to do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from annotations.agreement import comparisons
from annotations.models import Prompt
from annotations.selectors import usable_rankings
from webapp.accounts.models import Project, User
from webapp.encryption import encrypt
from webapp.errors import BadInput, Conflict
from webapp.judges.asking import require_usable
from webapp.judges.endpoint import PURPOSE
from webapp.judges.guarding import checked_address
from webapp.judges.items import BASELINE, MAX_SAMPLE, sample_pairs, who_ranked
from webapp.judges.jobs import JOBS, setup_of
from webapp.judges.models import Judge, JudgeJob, new_secret
from webapp.judges.protocol import PAIRWISE
from webapp.registry.services import require_deployable
from webapp.runs.models import Run
from webapp.runs.selectors import SAMPLES

SETTINGS: Final = (
    "name", "own_model", "address", "model", "mode", "rubric", "price_in", "price_out", "spending_limit", "max_tokens",
    "parallel", "timeout", "reads_chats",
)  # fmt: skip
MAX_PARALLEL: Final = 64


def add_judge(*, project: Project, by: User, key: str = "", **values: Any) -> Judge:
    """`values`: those of SETTINGS. Raises BadInput."""
    judge = Judge(project=project, created_by=by)
    set_values(judge, key, values)
    judge.save()
    return judge


@transaction.atomic
def change_judge(*, judge: Judge, key: str | None = None, **values: Any) -> Judge:
    """Change settings. `key`: None leaves the one that is stored, unless the address changes: a key is only ever sent
    to the address that it was entered for."""
    judge = Judge.objects.select_for_update(of=("self",)).select_related("project").get(pk=judge.pk)
    set_values(judge, key, values)
    judge.save()
    return judge


def set_values(judge: Judge, key: str | None, values: dict[str, Any]) -> None:
    before = judge.address
    for name, value in values.items():
        if name not in SETTINGS:
            raise BadInput(f"A judge has no {name}.", field=name)
        setattr(judge, name, value)
    if judge.own_model is not None:
        if judge.own_model.project_id != judge.project_id:
            raise BadInput("The model belongs to another project.", field="own_model")
        require_deployable(judge.own_model)
        judge.address, judge.model, judge.encrypted_key = "", "", ""
    else:
        judge.address = checked_address(judge.address)
        if not judge.model.strip():
            raise BadInput("Name the model as its endpoint calls it.", field="model")
        if key is not None or judge.address != before:
            judge.encrypted_key = encrypt((key or "").strip(), purpose=PURPOSE)
    if (judge.price_in is None) != (judge.price_out is None):
        raise BadInput("Give both prices, or neither.", field="price_out")
    if judge.spending_limit is not None and not judge.has_prices:
        raise BadInput("A spending limit needs the prices of tokens.", field="spending_limit")
    judge.full_clean(exclude=["reward_secret", "encrypted_key"])


def archive_judge(*, judge: Judge) -> None:
    """Take it out of the lists. Its answers and figures stay; its reward address works no more."""
    if judge.jobs.filter(state__in=JudgeJob.ACTIVE).exists():
        raise Conflict(f"{judge.name} is still asked something. Stop that first.")
    Judge.objects.filter(pk=judge.pk).update(archived_at=timezone.now())


def restore_judge(*, judge: Judge) -> None:
    Judge.objects.filter(pk=judge.pk).update(archived_at=None)


def renew_reward_address(*, judge: Judge) -> None:
    """Runs that have the old address get no more scores."""
    Judge.objects.filter(pk=judge.pk).update(reward_secret=new_secret())


# --------------------------------------------------------------------------------------------------------------- jobs


def start_try(*, judge: Judge, by: User, prompt: str, replies: Sequence[str]) -> JudgeJob:
    """Have a pair judged in both orders, or one or two replies scored. Raises BadInput."""
    replies = [reply.strip() for reply in replies if reply.strip()]
    if not prompt.strip() or len(replies) not in ((2,) if judge.mode == PAIRWISE else (1, 2)):
        raise BadInput("Give a prompt and two replies." if judge.mode == PAIRWISE else "Give a prompt and a reply.")
    data = {"messages": [{"role": "user", "content": prompt.strip()}], "replies": replies}
    return start_job(judge=judge, by=by, kind=JudgeJob.Kind.TRY, data=data)


def ranked_pair(judge: Judge, *, ranking_id: int | None = None) -> dict[str, Any] | None:
    """`data` of a try: the best and the worst reply of a ranking, of one drawn at random unless it is named; None if
    there is none that this judge may read. `ranking` is its id."""
    rankings = usable_rankings(judge.project).exclude(groups__0=None).exclude(groups__1=None)
    if judge.is_outside and not judge.reads_chats:
        rankings = rankings.exclude(prompt__source=Prompt.Source.CHAT)
    if ranking_id is None:
        count = rankings.count()
        ranking = rankings[random.randrange(count)] if count else None
    else:
        ranking = rankings.filter(pk=ranking_id).first()
    if ranking is None:
        return None
    a, b = sorted((ranking.groups[0][0], ranking.groups[-1][0]))
    texts = dict(ranking.prompt.responses.filter(pk__in=[a, b]).values_list("pk", "text"))
    rankings = usable_rankings(judge.project).filter(prompt=ranking.prompt)
    words = {
        who_ranked(row): word for row in rankings for pair, word in comparisons(row.groups).items() if pair == (a, b)
    }
    return {
        "messages": ranking.prompt.messages,
        "replies": [texts.get(a, ""), texts.get(b, "")],
        "prompt_id": ranking.prompt_id,
        "words": words,
        "ranking": ranking.pk,
    }


def start_comparison(*, judge: Judge, by: User, run: Run) -> JudgeJob:
    """Judge the replies that an evaluate run kept: two models against each other where it had a baseline, else the
    scores of one model's replies. Raises BadInput for a run that has none of what the judge needs."""
    if run.project_id != judge.project_id or SAMPLES not in run.outputs:
        raise BadInput("Choose an evaluate run of this project that has kept its replies.", field="run")
    if BASELINE in run.outputs:
        return start_job(judge=judge, by=by, kind=JudgeJob.Kind.COMPARE, run=run)
    if judge.mode == PAIRWISE:
        raise BadInput(
            f"{run.name} has the replies of one model only, and this judge compares two. Choose an evaluate run with a "
            "baseline, or a judge that scores.",
            field="run",
        )
    return start_job(judge=judge, by=by, kind=JudgeJob.Kind.SCORE, run=run)


def start_agreement(*, judge: Judge, by: User, size: int = 100, seed: int = 0) -> JudgeJob:
    """Judge a sample of what people ranked. Raises BadInput if nothing is ranked."""
    if not 1 <= size <= MAX_SAMPLE:
        raise BadInput(f"Choose 1 to {MAX_SAMPLE:,} pairs.", field="size")
    pairs = sample_pairs(judge.project, size, seed)
    if not pairs:
        raise BadInput("Nobody has ranked anything here yet, so there is nothing to agree with.", field="size")
    return start_job(judge=judge, by=by, kind=JudgeJob.Kind.AGREEMENT, data={"pairs": pairs, "seed": seed})


@transaction.atomic
def start_job(*, judge: Judge, by: User, kind: str, **fields: Any) -> JudgeJob:
    require_usable(judge)
    job = JudgeJob.objects.create(judge=judge, kind=kind, created_by=by, setup=setup_of(judge).as_json(), **fields)
    JOBS.wake(job)
    return job
