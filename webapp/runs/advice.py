"""What the launch form says as it is filled in: settings proposed for the model, what they need, how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.contract import SPECS, ModelFacts, Proposal
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.datasets.selectors import snapshots_of
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.estimates import Estimate, estimate
from webapp.runs.fitting import Fit, fit_of, model_words
from webapp.runs.forms import LaunchForm, control_text
from webapp.runs.models import Run
from webapp.runs.proposals import base_facts, learned_amount, proposals_for, unfrozen_rows, with_proposals
from webapp.runs.selectors import flattened
from webapp.runs.stages import settings_of


@dataclass(frozen=True)
class Advice:
    """`config`: all settings, those that are proposed included. `facts`: of the model that the run starts from; None if
    there is none, or its files cannot be read."""

    stage: str
    proposals: dict[str, Proposal]
    config: dict[str, Any]
    estimate: Estimate
    facts: ModelFacts | None
    fit: Fit | None

    @property
    def model(self) -> str:
        return model_words(self.facts) if self.facts else ""

    @property
    def lacks_template(self) -> bool:
        """Whether the stage reads conversations, which the model's tokenizer cannot write."""
        return self.facts is not None and self.facts.chat_template is False and self.stage != "pretrain"

    def values(self) -> dict[str, dict[str, str]]:
        """The proposals as static/js/launch.js reads them."""
        return {
            name: {"value": control_text(proposal.value), "why": proposal.why}
            for name, proposal in self.proposals.items()
        }

    def kept_in(self, config: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, str]:
        """Why settings that nobody chose have their values, for those that are as proposed in `config`."""
        flat = flattened(dict(config))
        return {
            name: proposal.why
            for name, proposal in self.proposals.items()
            if name not in chosen and flat.get(name) == proposal.value
        }


def advise(project: Project, stage: str, form: LaunchForm) -> Advice | None:
    """For the form as it stands; None while it does not fit."""
    if form.is_bound and form.errors:
        return None
    values, chosen, spec = form.values(), form.chosen(), SPECS[stage]
    snapshots, freeze = data_of(stage, values)
    base, corpus_run = model_in(values, "base"), values.get("corpus_run")
    corpus_run = corpus_run if isinstance(corpus_run, Run) else None
    facts = base_facts(stage, base, str(values.get("base_name") or ""))
    proposals = proposals_for(
        stage,
        facts,
        lambda: learned_amount(project, stage, snapshots=snapshots, freeze=freeze, corpus_run=corpus_run),
        chosen,
        recipe=str(values.get("recipe") or ""),
    )
    # Settings that nobody set follow the model: what an earlier proposal put into the form does not count.
    config = with_values({}, chosen) if spec.learns or not form.is_bound else values["config"]
    if terms := form.reward_terms():
        config = {**config, "rewards": terms}
    try:
        config = settings_of(stage, with_proposals(config, proposals))
    except BadInput:
        return None
    newest = [snapshot for kind in freeze if (snapshot := snapshots_of(project, kind=kind).first())]
    unseen = [kind for kind in freeze if kind not in {snapshot.kind for snapshot in newest}]
    return Advice(
        stage=stage,
        proposals=proposals,
        config=config,
        estimate=estimate(
            project,
            stage,
            config,
            snapshots=[*snapshots, *newest],
            corpus_run=corpus_run,
            base=base,
            unfrozen=unfrozen_rows(project, unseen),
        ),
        facts=facts,
        fit=fit_of(stage, config, facts, reward=model_in(values, "reward")) if spec.learns else None,
    )


def data_of(stage: str, values: Mapping[str, Any]) -> tuple[list[Snapshot], list[str]]:
    """The snapshots that were chosen, and the kinds of which the run takes all there is now."""
    kinds = SPECS[stage].snapshots
    snapshots = [values[kind] for kind in kinds if isinstance(values.get(kind), Snapshot)]
    return snapshots, [kind for kind in kinds if not values.get(kind) and SPECS[stage].learns_from(kind)]


def model_in(values: Mapping[str, Any], name: str) -> ModelVersion | None:
    model = values.get(name)
    return model if isinstance(model, ModelVersion) else None


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with values under dotted names."""
    return with_proposals(config, {name: Proposal(value, "") for name, value in values.items()})
