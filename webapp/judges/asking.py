"""Asking a judge many questions: in parallel, each once, within what it may spend."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Sum

from webapp.errors import Conflict
from webapp.judges.endpoint import Endpoint, Pause, Refused, Reply
from webapp.judges.models import Judge, JudgeAnswer, JudgeCall
from webapp.judges.protocol import Question, Setup, Verdict, judge_messages, read_verdict, storable

MAX_TRIES: Final = 3  # for one question, while the answers cannot be used
CHARACTERS_PER_TOKEN: Final = 3  # few, so that what is set aside for a question is rather too much
LOOKED_UP: Final = 1000  # answers in one query
LOOK_UP_SECONDS: Final = 0.5  # after which `stop` is asked again while answers are awaited


class OverLimit(Exception):
    """One more question could cost more than the judge may spend."""


@dataclass
class Pending:
    """A question that is to be asked, and how often its answer could not be used."""

    question: Question
    key: str
    messages: list[dict[str, str]]
    tries: int = 0


def known_answers(judge: Judge, setup: Setup, questions: Iterable[Question]) -> dict[str, JudgeAnswer]:
    """The answers that are kept, by key."""
    keys = list(dict.fromkeys(question.key(setup) for question in questions))
    answers_by_key: dict[str, JudgeAnswer] = {}
    for start in range(0, len(keys), LOOKED_UP):
        rows = JudgeAnswer.objects.filter(project=judge.project, key__in=keys[start : start + LOOKED_UP])
        answers_by_key |= {answer.key: answer for answer in rows}
    return answers_by_key


def ask_all(
    judge: Judge,
    setup: Setup,
    questions: Sequence[Question],
    *,
    endpoint: Endpoint,
    stop: Callable[[], bool] = lambda: False,
    answered: Callable[[JudgeAnswer], None] = lambda _: None,
    **about: Any,
) -> bool:
    """Ask what no answer is kept for, and keep each answer as it comes; `answered` hears of it. True if nothing is left
    to ask, False if `stop` said so. `about`: the job or run that the calls are counted for.

    Raises Pause (the endpoint cannot answer now), Refused (it never will), OverLimit. Whatever was answered until then
    is kept, and calls under way are waited for: they are paid for.
    """
    answers_by_key = known_answers(judge, setup, questions)
    keyed = {question.key(setup): question for question in questions}
    waiting = deque(Pending(q, key, judge_messages(setup, q)) for key, q in keyed.items() if key not in answers_by_key)
    running: dict[Future[Reply], Pending] = {}
    halt: Exception | None = None
    with ThreadPoolExecutor(judge.parallel, thread_name_prefix=f"judge {judge.pk}") as threads:
        while running or (waiting and halt is None and not stop()):
            while waiting and halt is None and len(running) < judge.parallel and not stop():
                if is_over_limit(judge, [*running.values(), waiting[0]]):
                    halt = None if running else OverLimit()  # what is under way may cost less than was set aside
                    break
                pending = waiting.popleft()
                running[threads.submit(endpoint.ask, pending.messages)] = pending
            done, _ = wait(running, timeout=LOOK_UP_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                pending, error = running.pop(future), future.exception()
                if isinstance(error, Pause | Refused):
                    halt = error if halt is None or isinstance(error, Refused) else halt
                elif error is not None:
                    raise error
                elif (answer := take_reply(judge, setup, pending, future.result(), about)) is not None:
                    answered(answer)
                else:
                    waiting.append(pending)
    if halt is not None:
        raise halt
    return not waiting


def take_reply(judge: Judge, setup: Setup, pending: Pending, reply: Reply, about: dict[str, Any]) -> JudgeAnswer | None:
    """Count the call, and keep the answer; None if the question must be asked again."""
    read = Verdict(reason=storable(reply.problem)) if reply.problem else read_verdict(setup.mode, reply.text)
    JudgeCall.objects.create(
        judge=judge,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        cost=judge.price_of(reply.tokens_in, reply.tokens_out),
        seconds=reply.seconds,
        usable=read.usable,
        **about,
    )
    pending.tries += 1
    if not read.usable and not reply.problem and pending.tries < MAX_TRIES:
        return None
    verdict_fields = {"verdict": read.verdict, "score": read.score, "reason": read.reason}
    answer, _ = JudgeAnswer.objects.get_or_create(
        project=judge.project, key=pending.key, defaults={"prompt_id": pending.question.prompt_id, **verdict_fields}
    )
    return answer


def is_over_limit(judge: Judge, pending: Sequence[Pending]) -> bool:
    """Whether these questions together could cost more than is left of what the judge may spend."""
    if judge.spending_limit is None:
        return False
    lengths = [sum(len(turn["content"]) for turn in question.messages) for question in pending]
    highest_cost = sum(judge.price_of(length // CHARACTERS_PER_TOKEN + 16, judge.max_tokens) for length in lengths)
    return spent(judge) + highest_cost > judge.spending_limit


def spent(judge: Judge, **among: Any) -> float:
    """Dollars, of all its calls or of those of a job or run."""
    return float(JudgeCall.objects.filter(judge=judge, **among).aggregate(total=Sum("cost"))["total"] or 0.0)


def require_usable(judge: Judge) -> None:
    """Raises Conflict for a judge that is archived."""
    if judge.archived_at is not None:
        raise Conflict(f"{judge.name} is archived. Restore it on its page first.")
