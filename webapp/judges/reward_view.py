"""A judge as a reward: the address that a training run posts its replies to.

A training child has no credentials and no key of a judge. It has this address, whose secret opens one judge for scores
and nothing else, and only while a run of the project is active that was launched with it. See
docs/decisions/judges.md.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, NamedTuple

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from annotations.models import Prompt
from annotations.services.prompts import digest_of
from webapp.accounts.access import public
from webapp.errors import BadInput, Conflict, NotFound, TutelageError, Unavailable
from webapp.judges.asking import OverLimit, ask_all, known_answers, require_usable
from webapp.judges.endpoint import Endpoint, Pause, Refused
from webapp.judges.items import Item
from webapp.judges.jobs import OVER_LIMIT, setup_of
from webapp.judges.models import Judge
from webapp.judges.protocol import MAX_SCORE, MIN_SCORE, PAIRWISE, Setup
from webapp.judges.results import judged
from webapp.runs.models import Run
from webapp.strict_json import parse_json

MAX_REPLIES: Final = 10_000
MAX_SECONDS: Final = 540.0  # for one batch; what is answered by then is kept, and the rest is asked at the next try
FIRST_WAIT, MAX_WAIT = 1.0, 30.0  # seconds, where the endpoint does not say how long


class Batch(NamedTuple):
    """N conversations, replies and references; a reference is None where a prompt has none."""

    prompts: list[list[dict[str, str]]]
    replies: list[str]
    references: list[Any]


@csrf_exempt
@require_POST
@public
def judge_reward(request: HttpRequest, secret: str) -> JsonResponse:
    """{"scores": […]}: 0 to 1 for each reply, null where the judge has nothing to say."""
    try:
        judge = Judge.objects.select_related("project", "own_model__project").filter(reward_secret=secret).first()
        if judge is None:
            raise NotFound("No judge has this address. It may have been renewed on the judge's page.")
        require_usable(judge)
        runs = runs_with(judge)
        if not runs:
            raise Conflict("No run that was launched with this address is active.")
        batch = read_batch(request.body)
        return JsonResponse({"scores": scores_of(judge, batch, runs[0] if len(runs) == 1 else None)})
    except TutelageError as error:
        response = JsonResponse({"error": {"message": error.message, "code": error.error_code}}, status=error.status)
        if isinstance(error, Unavailable):
            response["Retry-After"] = "5"
        return response


def runs_with(judge: Judge) -> list[Run]:
    """Active runs that were launched with its reward address."""
    active = Run.objects.filter(project=judge.project, state__in=Run.ACTIVE).order_by("-id")
    return [run for run in active if judge.reward_secret in json.dumps(run.config)]


def read_batch(body: bytes) -> Batch:
    """Raises BadInput."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadInput("The body must be a JSON object.")
    prompts, replies = document.get("prompts"), document.get("replies")
    references = document.get("references")
    if not isinstance(prompts, list) or not isinstance(replies, list) or len(prompts) != len(replies):
        raise BadInput("prompts and replies must be lists of one length.")
    if references is None:
        references = [None] * len(replies)
    if not isinstance(references, list) or len(references) != len(replies):
        raise BadInput("references must have as many entries as replies.")
    if len(replies) > MAX_REPLIES:
        raise BadInput(f"At most {MAX_REPLIES:,} replies at once.")
    if not all(isinstance(reply, str) for reply in replies) or not all(map(is_conversation, prompts)):
        raise BadInput("A prompt is a list of turns with role and content, and a reply is a text.")
    return Batch([[{"role": t["role"], "content": t["content"]} for t in p] for p in prompts], replies, references)


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in prompt
    )


def scores_of(judge: Judge, batch: Batch, run: Run | None) -> list[float | None]:
    """Scores from 0 to 1: of a pairwise judge 1 for a reply that beats its prompt's reference, a half for a tie."""
    setup = setup_of(judge)
    from_chats = unreadable(judge, batch.prompts)
    items: list[Item | None] = []
    for at, (prompt, reply, reference) in enumerate(zip(*batch, strict=True)):
        if from_chats[at] or (setup.mode == PAIRWISE and not isinstance(reference, str)):
            items.append(None)
        else:
            items.append(Item(prompt, (reply, reference) if setup.mode == PAIRWISE else (reply,)))
    questions = [question for item in items if item for question in item.questions(setup)]
    ask_patiently(judge, setup, questions, run)
    answers = known_answers(judge, setup, questions)
    rows = [judged(item, setup, answers) if item else None for item in items]
    if setup.mode == PAIRWISE:
        return [(row.word + 1) / 2 if row else None for row in rows]
    return [(row.scores[0] - MIN_SCORE) / (MAX_SCORE - MIN_SCORE) if row else None for row in rows]


def unreadable(judge: Judge, prompts: list[list[dict[str, str]]]) -> list[bool]:
    """Which prompts are from chats that the judge may not read; with or without a system turn before them."""
    if not judge.is_outside or judge.reads_chats:
        return [False] * len(prompts)
    digests = [{digest_of(prompt), digest_of(prompt[1:] if prompt[:1] and prompt[0]["role"] == "system" else prompt)}
               for prompt in prompts]  # fmt: skip
    chats = Prompt.objects.filter(project=judge.project, source=Prompt.Source.CHAT, digest__in=set().union(*digests))
    found = set(chats.values_list("digest", flat=True))
    return [bool(own & found) for own in digests]


def ask_patiently(judge: Judge, setup: Setup, questions: list[Any], run: Run | None) -> None:
    """Ask until all is answered, waiting where the endpoint limits or fails. Raises Unavailable when the time is up,
    Conflict where asking again is of no use."""
    deadline, wait = time.monotonic() + MAX_SECONDS, FIRST_WAIT
    late = Unavailable("The judge has not answered in time. What it has said is kept; send the batch again.")
    if not questions or len(known_answers(judge, setup, questions)) == len({q.key(setup) for q in questions}):
        return
    with Endpoint.of(judge) as endpoint:
        while True:
            try:
                if ask_all(
                    judge, setup, questions, endpoint=endpoint, stop=lambda: time.monotonic() > deadline, run=run
                ):
                    return
                raise late
            except Pause as pause:
                seconds = pause.seconds if pause.seconds is not None else wait
                if time.monotonic() + seconds > deadline:
                    raise Unavailable(f"The judge does not answer: {pause.message}") from pause
                time.sleep(seconds)
                wait = min(MAX_WAIT, 2 * wait)
            except Refused as error:
                raise Conflict(error.message) from error
            except OverLimit as error:
                raise Conflict(OVER_LIMIT.format(limit=judge.spending_limit or 0.0)) from error
