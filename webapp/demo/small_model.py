"""A project around a small real chat model, for those who want to teach one rather than see one made from nothing."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction

from webapp.accounts.models import User
from webapp.accounts.services import create_project
from webapp.runs.machines import small_model_folder
from webapp.runs.models import Run
from webapp.runs.services import launch_run

HUB_NAME: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
ABOUT: Final = "SmolLM2, a chat model of 135 million parameters: chat with it, rank its replies, and train it."
# A model of this size wanders at a temperature of 1; at 0.7 its replies still differ enough to be ranked.
SAMPLING: Final[dict[str, Any]] = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 128}


def small_model_source() -> str:
    """A folder on the training machine if there is one, else its name on the hub."""
    return small_model_folder() or HUB_NAME


@transaction.atomic
def start_small_model(*, by: User) -> Run:
    """The run that adds the model to a new project; the project is `by`'s own."""
    project = create_project(user=by, name="Small model", description=ABOUT, **SAMPLING)
    return launch_run(project=project, stage="add", by=by, name="SmolLM2 135M Instruct", base_name=small_model_source())
