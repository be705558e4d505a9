"""What the first page says: counts along the loop, and what one's own labels came to."""

from __future__ import annotations

from typing import Final, NamedTuple

from django.db.models import Count, Q
from django.urls import reverse

from annotations.models import Demonstration, Prompt, Ranking
from annotations.selectors import label_ids, labels_given, labels_open_to, labels_wanted, today_count
from webapp.accounts.models import Project, User
from webapp.chat.models import Conversation, Feedback
from webapp.datasets.models import Corpus, Snapshot
from webapp.links import address_of
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import open_deployments
from webapp.runs.models import Run

UNDER_WAY: Final = (Run.State.QUEUED, Run.State.CLAIMED, Run.State.RUNNING)


class Station(NamedTuple):
    """One stop of the loop. `url` is empty if the person may not go."""

    key: str
    name: str
    number: int
    note: str
    url: str


def project_counts(project: Project) -> dict[str, int]:
    """Live figures of the project, by station."""
    runs = Run.objects.filter(project=project).aggregate(
        all=Count("id"),
        under_way=Count("id", filter=Q(state__in=UNDER_WAY)),
        failed=Count("id", filter=Q(state="failed")),
    )
    feedback = Feedback.objects.filter(message__conversation__project=project)
    return {
        "prompts": Prompt.objects.filter(project=project, withdrawn_at=None).count(),
        "demonstrations": Demonstration.objects.filter(prompt__project=project, retracted_at=None).count(),
        "rankings": Ranking.objects.filter(prompt__project=project, retracted_at=None).count(),
        "corpora": Corpus.objects.filter(project=project).count(),
        "snapshots": Snapshot.objects.filter(project=project).count(),
        "runs": runs["all"],
        "runs_under_way": runs["under_way"],
        "models": ModelVersion.objects.filter(project=project, archived_at=None).count(),
        "deployed": open_deployments(project).count(),
        "chats": Conversation.objects.filter(project=project, deleted_at=None).count(),
        "feedback": feedback.count(),
        "feedback_used": feedback.exclude(task=None, demonstration=None, ranking=None).count(),
        "tasks": sum(labels_wanted(project).values()),
    }


def stations(project: Project, figures: dict[str, int], *, manages: bool) -> list[Station]:
    """The loop, in its order. Links lead where the person may go."""
    slug = project.slug
    live = open_deployments(project).filter(state="live").select_related("model").first()

    def managed(name: str) -> str:
        return address_of(name, slug) if manages else ""

    def rows(key: str, name: str, note: str, url: str) -> Station:
        return Station(key, name, figures[key], note, url)

    running = figures["runs_under_way"]
    return [
        rows("prompts", "Prompts", "what people ask", managed("data_prompts")),
        rows("demonstrations", "Demonstrations", "how to answer", managed("data_demonstrations")),
        rows("rankings", "Rankings", "which answer is better", managed("data_rankings")),
        rows("snapshots", "Snapshots", "frozen for training", managed("snapshot_list")),
        rows("runs", "Runs", f"{running} under way" if running else "training", managed("run_list")),
        rows("models", "Models", "every one kept", managed("model_list")),
        rows("deployed", "Live", live.model.name if live else "nothing deployed", managed("deployment_list")),
        rows("chats", "Chats", "with the live model", f"{reverse('chat')}?project={slug}"),
        rows("feedback", "Feedback", f"{figures['feedback_used']} became work", managed("data_tasks")),
    ]


def own_figures(user: User, project: Project) -> dict[str, int]:
    """The person's own labels: how many they gave, how many of those today, how many they can give now (`open`), and
    how many models have learned from theirs."""
    ids = label_ids(user, project)
    numbers = {kind: [int(label.partition(":")[2]) for label in labels] for kind, labels in ids.items()}
    learned = Snapshot.objects.filter(
        Q(kind="demonstrations", items__row__in=numbers.get("demonstrations", []))
        | Q(kind="rankings", items__row__in=numbers.get("rankings", []))
        | Q(kind="judgments", items__row__in=numbers.get("judgments", [])),
        project=project,
    )
    models = ModelVersion.objects.filter(run__snapshots__in=learned.values("pk")).distinct().count()
    return {
        "labels": labels_given(user, project),
        "today": today_count(user, project),
        "open": sum(labels_open_to(user, project).values()),
        "models": models,
    }
