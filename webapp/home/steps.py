"""What a person does next in a project, by role and by what the loop lacks."""

from __future__ import annotations

from typing import Final, NamedTuple

from django.urls import reverse

from webapp.accounts.access import MANAGERS, role_of
from webapp.accounts.models import Project, Role, User
from webapp.links import address_of
from webapp.registry.models import ModelVersion

ENOUGH_RANKINGS: Final = 20
MOST: Final = 3


class Step(NamedTuple):
    title: str
    why: str
    url: str
    label: str


def next_steps(*, user: User, project: Project, figures: dict[str, int]) -> list[Step]:
    """At most three things that bring the loop on, the most pressing first. `figures`: of `home.selectors.counts`."""
    role = role_of(user, project)
    steps = steps_of_managers(project, figures) if role in MANAGERS else []
    if role != Role.TESTER and figures["tasks"]:
        steps.insert(0 if role == Role.ANNOTATOR else len(steps), labelling(project, figures["tasks"]))
    if figures["deployed"]:
        steps.append(chatting(project))
    return steps[:MOST] or [all_done(project)]


def labelling(project: Project, wanted: int) -> Step:
    title = f"{wanted:,} label{'' if wanted == 1 else 's'} wanted"
    return Step(title, "Each is a minute or two.", f"{address_of('label')}?project={project.slug}", "Start labelling")


def chatting(project: Project) -> Step:
    why = "Say what is wrong with its answers: that is how it learns."
    return Step(f"Chat with {project.name}", why, f"{reverse('chat')}?project={project.slug}", "Open the chat")


def all_done(project: Project) -> Step:
    why = "Nothing waits for you. When there are replies to judge or a model to talk to, you find them here."
    return Step("All done", why, address_of("project_detail", project.slug), "About the project")


def steps_of_managers(project: Project, figures: dict[str, int]) -> list[Step]:
    """What is missing along the loop, from its beginning."""
    made = set(ModelVersion.objects.filter(project=project, archived_at=None).values_list("stage", flat=True))
    tuned = made & {"sft", "ppo", "dpo"}
    steps: list[Step] = []

    def missing(wanted: bool, title: str, why: str, label: str, page: str, *more: str) -> None:
        if wanted:
            steps.append(Step(title, why, address_of(page, project.slug, *more), label))

    missing(
        not figures["prompts"] and not figures["corpora"],
        "Bring in text and prompts", "Everything starts with what people ask.", "Import files", "data_import_new",
    )  # fmt: skip
    missing(
        figures["corpora"] > 0 and not tuned and "pretrain" not in made and not project.base_model,
        "Make a base model", "Clean the text, train a tokenizer, pretrain.", "Clean the text", "run_launch", "corpus",
    )  # fmt: skip
    missing(
        figures["demonstrations"] > 0 and not tuned,
        "Fine-tune on the demonstrations", f"{figures['demonstrations']:,} are there.", "Set up the run",
        "run_launch", "sft",
    )  # fmt: skip
    missing(
        figures["rankings"] >= ENOUGH_RANKINGS and "reward" not in made,
        "Learn what people prefer", f"{figures['rankings']:,} rankings are there.", "Train a reward model",
        "run_launch", "reward",
    )  # fmt: skip
    missing(
        "reward" in made and not made & {"ppo", "dpo"},
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
