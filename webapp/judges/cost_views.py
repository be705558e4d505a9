"""What a judge costs as a reward: before, on the launch form, and during, on the page of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.http import HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

from training.contract import SPECS
from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.judges import selectors
from webapp.judges.as_rewards import calls_per_reply, key_of
from webapp.judges.models import Judge
from webapp.params import parse_int
from webapp.runs.models import Run
from webapp.runs.reward_fields import PREFIX
from webapp.runs.stages import LAUNCHED

MAX_REPLIES: Final = 10**9  # in one of the factors


@dataclass(frozen=True)
class RewardCost:
    """`seconds` and `cost` follow the judge's calls so far; None before the first, or without prices."""

    judge: Judge
    calls: int
    seconds: float | None
    cost: float | None

    @property
    def left(self) -> float | None:
        """Dollars that the judge may still spend."""
        limit = self.judge.spending_limit
        return None if limit is None else max(0.0, limit - selectors.usage(self.judge.calls.all()).cost)

    @property
    def goes_beyond(self) -> bool:
        """Whether the limit is likely to stop the run."""
        return self.cost is not None and self.left is not None and self.cost > self.left


@require_POST
@requires("runs.manage")
def judge_cost(request: Request, project: Project, stage: str) -> HttpResponse:
    """About how many calls a run asks of the judges whose reward addresses stand in the form, and what they cost."""
    costs: list[RewardCost] = []
    text = "\n".join(value for name in request.POST for value in request.POST.getlist(name))
    judges = [judge for judge in selectors.judges_of(project) if is_chosen(judge, request.POST, text)]
    if judges and stage in LAUNCHED:
        costs = [reward_cost(judge, replies_sampled(stage, request.POST)) for judge in judges]
    return render(request, "judges/reward_cost.html", {"costs": costs})


def is_chosen(judge: Judge, values: QueryDict, text: str) -> bool:
    """Whether the form has it switched on, or its address somewhere."""
    return f"{PREFIX}.{key_of(judge)}.use" in values or judge.reward_secret in text


def replies_sampled(stage: str, values: QueryDict) -> int:
    """How many replies a run samples to learn from; evaluations on held-out prompts come on top."""
    defaults = SPECS[stage].settings.model_fields
    replies = 1
    for name in ("steps", "prompts_per_step", "samples_per_prompt"):
        number = parse_int(values.get(name, ""), high=MAX_REPLIES)
        default = defaults[name].default if name in defaults else 0
        replies *= default if number is None else number
    return replies


def reward_cost(judge: Judge, replies: int) -> RewardCost:
    calls = replies * calls_per_reply(judge)
    used = selectors.usage(judge.calls.all())
    seconds = calls * used.seconds / judge.parallel if used.seconds is not None else None
    each = used.cost_per_call if judge.has_prices else None
    return RewardCost(judge, calls, seconds, calls * each if each is not None else None)


@require_safe
@requires("runs.view", Run.objects.select_related("project"))
def run_judges(request: Request, run: Run) -> HttpResponse:
    """What the judges have been asked for this run so far."""
    judges = Judge.objects.filter(project=run.project, calls__run=run).distinct()
    rows = [(judge, selectors.usage(judge.calls.filter(run=run))) for judge in judges]
    return render(request, "judges/run.html", {"run": run, "rows": rows})
