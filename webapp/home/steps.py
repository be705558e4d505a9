"""What a person does next in a project, by role and by what the loop lacks."""

from __future__ import annotations

from typing import Final, NamedTuple

from django.urls import reverse

from training.contract import SPECS
from webapp.accounts.access import MANAGERS, role_of
from webapp.accounts.models import Project, Role, User
from webapp.home.selectors import UNDER_WAY
from webapp.links import address_of
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run
from webapp.text import counted

ENOUGH_RANKINGS: Final = 20
MOST: Final = 3
IMPROVING: Final = {name for name, spec in SPECS.items() if spec.improves_policy}
BASE: Final = {"corpus": "Clean the text", "tokenizer": "Train a tokenizer", "pretrain": "Pretrain"}


class Step(NamedTuple):
    title: str
    why: str
    url: str
    label: str


def next_steps(*, user: User, project: Project, figures: dict[str, int], labels: int) -> list[Step]:
    """At most three things that bring the loop on, the most pressing first.

    Args:
        figures: of `home.selectors.counts`.
        labels: how many the person can give now.
    """
    role = role_of(user, project)
    steps = steps_of_managers(project, figures) if role in MANAGERS else []
    if role != Role.TESTER and labels:
        steps.insert(0 if role == Role.ANNOTATOR else len(steps), labeling(project, labels))
    if figures["deployed"]:
        steps.append(chatting(project))
    return steps[:MOST] or [all_done(project, 0 if role == Role.TESTER else figures["tasks"])]


def labeling(project: Project, label_count: int) -> Step:
    title = f"{counted(label_count, 'task')} waiting for you"
    return Step(title, "Each takes a minute or two.", f"{address_of('label')}?project={project.slug}", "Start labeling")


def chatting(project: Project) -> Step:
    explanation = "Say what is wrong with its answers: that is how it learns."
    return Step(f"Chat with {project.name}", explanation, f"{reverse('chat')}?project={project.slug}", "Open the chat")


def all_done(project: Project, wanted_of_others: int) -> Step:
    explanation = "When there are replies to judge or a model to talk to, you find them here."
    if wanted_of_others:
        verb = "label is" if wanted_of_others == 1 else "labels are"
        explanation = f"You have done everything you can. {wanted_of_others:,} more {verb} wanted, from other people."
    return Step("All done", explanation, address_of("project_detail", project.slug), "About the project")


def watching(runs: list[Run]) -> Step:
    newest = runs[0]
    title = f"{newest.name} is under way" if len(runs) == 1 else f"{len(runs)} runs are under way"
    return Step(title, "Curves and samples as it learns.", address_of("run_detail", newest.pk), "Watch it")


def next_for_a_base(done: set[str]) -> str:
    """The first stage on the way to a base model that has not been through; empty if there is one."""
    return next((stage for stage in BASE if stage not in done), "") if "pretrain" not in done else ""


def steps_of_managers(project: Project, figures: dict[str, int]) -> list[Step]:
    """What is missing along the loop, from its beginning."""
    runs = Run.objects.filter(project=project)
    under_way = list(runs.filter(state__in=UNDER_WAY).order_by("id"))
    doing = {run.stage for run in under_way}
    stages_made = set(ModelVersion.objects.filter(project=project, archived_at=None).values_list("stage", flat=True))
    chatting_models = stages_made & {"add", "sft", *IMPROVING}  # those that can be talked to
    tuned = stages_made & {"sft", *IMPROVING}
    stages_made |= doing  # what a run is about to make is not missing
    steps = [watching(under_way)] if under_way else []

    def missing(applies: bool, title: str, explanation: str, label: str, page: str, *arguments: str) -> None:
        if applies:
            steps.append(Step(title, explanation, address_of(page, project.slug, *arguments), label))

    missing(
        not figures["prompts"] and not figures["corpora"] and "add" not in stages_made,
        "Bring in text and prompts", "Everything starts with what people ask.", "Import files", "data_import_new",
    )  # fmt: skip
    stage = next_for_a_base(set(runs.filter(state=Run.State.SUCCEEDED).values_list("stage", flat=True)))
    missing(
        figures["corpora"] > 0 and not tuned and not project.base_model and stage != "" and not doing & BASE.keys(),
        "Make a base model", "Clean the text, train a tokenizer, pretrain.", BASE.get(stage, ""), "run_launch", stage,
    )  # fmt: skip
    missing(
        not stages_made and not figures["corpora"] and not figures["demonstrations"],
        "Bring a chat model", "From the Hugging Face hub or a folder; or make one from your own text.", "Add a model",
        "run_launch", "add",
    )  # fmt: skip
    missing(
        "add" in chatting_models and not figures["deployed"],
        "Deploy your model", "Then you and your team can chat with it.", "Choose a model", "model_list",
    )  # fmt: skip
    missing(
        "add" in chatting_models and figures["prompts"] == 0,
        "Bring in prompts", "Write some, or import a file: your model replies to them.", "Add prompts", "data_prompts",
    )  # fmt: skip
    missing(
        "add" in chatting_models and figures["prompts"] > 0 and not runs.filter(stage="sample").exists(),
        "Have your model reply", "Several replies to each prompt, which people then rank.", "Sample replies",
        "run_launch", "sample",
    )  # fmt: skip
    missing(
        "add" in chatting_models and not tuned and figures["rankings"] >= ENOUGH_RANKINGS and not doing & IMPROVING,
        "Improve it from the rankings", f"{counted(figures['rankings'], 'ranking')} so far. DPO needs nothing else.",
        "Set up DPO", "run_launch", "dpo",
    )  # fmt: skip
    missing(
        figures["demonstrations"] > 0 and not tuned and not doing & {"sft", *BASE},
        "Fine-tune on the demonstrations", f"{counted(figures['demonstrations'], 'demonstration')} so far.",
        "Set up the run", "run_launch", "sft",
    )  # fmt: skip
    missing(
        figures["rankings"] >= ENOUGH_RANKINGS and "reward" not in stages_made,
        "Learn what people prefer", f"{counted(figures['rankings'], 'ranking')} so far.", "Train a reward model",
        "run_launch", "reward",
    )  # fmt: skip
    missing(
        "reward" in stages_made and not stages_made & IMPROVING,
        "Improve the policy", "The reward model is ready.", "Set up PPO", "run_launch", "ppo",
    )  # fmt: skip
    missing(
        bool(tuned) and not figures["deployed"],
        "Deploy a model", "Then people can chat with it.", "Choose a model", "model_list",
    )  # fmt: skip
    missing(
        project.memberships.count() == 1,
        "Invite your team", "Annotators and testers come by a link.", "Invite people", "member_list",
    )  # fmt: skip
    return steps
