"""From a model to its labels and back."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot, SnapshotItem
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.drawing import draw_lineage
from webapp.runs.lineage import lineage, models_that_learned_from
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
Kind = ModelVersion.Kind


def trained(
    project: Project, stage: str, kind: Kind = Kind.FULL, snapshot: Snapshot | None = None, **inputs: Any
) -> ModelVersion:
    model = factories.model_version(project, kind, stage=stage)
    run = factories.run(project, stage, state=Run.State.SUCCEEDED, output=model, **inputs)
    if snapshot:
        run.snapshots.add(snapshot)
    return model


@pytest.fixture
def family(project: Project) -> dict[str, ModelVersion]:
    """sft from demonstrations 1 and 2 (2 held out), reward from ranking 7, ppo from both."""
    shown = factories.snapshot(project, Snapshot.Kind.DEMONSTRATIONS, counts={"train": 1, "heldout": 1})
    ranked = factories.snapshot(project, Snapshot.Kind.RANKINGS, counts={"train": 1, "heldout": 0})
    SnapshotItem.objects.create(snapshot=shown, row=1)
    SnapshotItem.objects.create(snapshot=shown, row=2, heldout=True)
    SnapshotItem.objects.create(snapshot=ranked, row=7)
    sft = trained(project, "sft", snapshot=shown)
    reward = trained(project, "reward", Kind.REWARD, snapshot=ranked, base=sft)
    ppo = trained(project, "ppo", base=sft, reward=reward)
    return {"sft": sft, "reward": reward, "ppo": ppo}


def test_every_descendant_learned_from_a_demonstration(family: dict[str, ModelVersion]) -> None:
    assert set(models_that_learned_from("demonstration", 1)) == set(family.values())


def test_a_ranking_reaches_the_policy_through_the_reward_model(family: dict[str, ModelVersion]) -> None:
    assert set(models_that_learned_from("ranking", 7)) == {family["reward"], family["ppo"]}


def test_held_out_rows_taught_nobody(family: dict[str, ModelVersion]) -> None:
    assert not models_that_learned_from("demonstration", 2).exists()


def test_rows_of_another_kind_with_the_same_id_are_not_confused(family: dict[str, ModelVersion]) -> None:
    assert not models_that_learned_from("ranking", 1).exists()
    with pytest.raises(BadInput):
        models_that_learned_from("dream", 1)


def test_the_page_of_a_prompt_names_the_models_that_learned_from_its_labels(
    client: Client, project: Project, ada: User, ann: User
) -> None:
    ranking = factories.ranking(project, ann)
    ranked = factories.snapshot(project, Snapshot.Kind.RANKINGS)
    SnapshotItem.objects.create(snapshot=ranked, row=ranking.pk)
    reward = trained(project, "reward", Kind.REWARD, snapshot=ranked)
    client.force_login(ada)
    page = client.get(reverse("data_prompt", args=[project.slug, ranking.prompt.pk]))
    assert set(page.context["models"]) == {reward}


def test_a_model_s_descent_names_labels_snapshots_runs_models_and_deployments(
    project: Project, family: dict[str, ModelVersion]
) -> None:
    factories.deployment(project, family["ppo"])
    found = lineage(family["ppo"])
    assert [node.kind for node in found.nodes].count("run") == 3
    assert {node.kind for node in found.nodes} == {"labels", "snapshot", "run", "model", "deployment"}
    keys = {node.key for node in found.nodes}
    assert all(edge.source in keys and edge.target in keys for edge in found.edges)
    assert [node.key for node in found.nodes if node.current] == [f"model:{family['ppo'].pk}"]


def test_the_picture_puts_nothing_on_top_of_another(project: Project, family: dict[str, ModelVersion]) -> None:
    picture = draw_lineage(lineage(family["ppo"]))
    places = [(box.x, box.y) for box in picture.boxes]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) + picture.box_width <= picture.width
    assert len(picture.lines) == len(set(lineage(family["ppo"]).edges))


def test_columns_without_a_box_take_no_room(project: Project) -> None:
    picture = draw_lineage(lineage(trained(project, "add")))
    assert [title.text for title in picture.titles] == ["Run", "Model"]
    assert min(box.x for box in picture.boxes) == 2
    assert picture.width < 3 * picture.box_width
