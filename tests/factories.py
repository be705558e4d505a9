"""Rows for tests: plain functions with defaults that make sense; what a test cares about it passes by name."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from itertools import count
from pathlib import Path
from typing import Any

from django.utils import timezone

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Response, Task
from webapp.accounts.models import Consent, Guidelines, Membership, Project, Role, User
from webapp.chat.models import Conversation, Message
from webapp.datasets.models import Corpus, Document, Snapshot
from webapp.registry.artefacts import hashes_of, publish_folder
from webapp.registry.models import Deployment, ModelVersion
from webapp.runs.models import Run

PASSWORD = "correct horse battery"
number = count(1)


def person(name: str = "", **fields: Any) -> User:
    name = name or f"person{next(number)}"
    fields.setdefault("password", PASSWORD)
    fields.setdefault("email", f"{name.lower()}@example.org")
    return User.objects.create_user(name=name, **fields)


def member(project: Project, user: User, role: Role = Role.ANNOTATOR) -> Membership:
    return Membership.objects.create(project=project, user=user, role=role)


def project(owner: User | None = None, name: str = "", **fields: Any) -> Project:
    """A project with its owner and the first version of its guidelines."""
    owner = owner or person()
    name = name or f"Project {next(number)}"
    fields.setdefault("slug", name.lower().replace(" ", "-"))
    made = Project.objects.create(name=name, created_by=owner, **fields)
    member(made, owner, Role.OWNER)
    Guidelines.objects.create(project=made, version=1, text="Be correct, be kind, be brief.", created_by=owner)
    return made


def prompt(project: Project, text: str = "", **fields: Any) -> Prompt:
    text = text or f"What is {next(number)} plus one?"
    messages = fields.pop("messages", [{"role": "user", "content": text}])
    fields.setdefault("digest", hashlib.sha256(json.dumps(messages).encode()).hexdigest())
    fields.setdefault("split", Prompt.Split.TRAIN)
    fields.setdefault("source", Prompt.Source.WRITTEN)
    return Prompt.objects.create(project=project, messages=messages, **fields)


def response(prompt: Prompt, text: str = "", **fields: Any) -> Response:
    return Response.objects.create(prompt=prompt, text=text or f"Reply {next(number)}.", **fields)


def task(project: Project, kind: Task.Kind = Task.Kind.WRITE, replies: int = 3, **fields: Any) -> Task:
    """An open task; one to rank comes with `replies` responses unless `responses` names them."""
    responses = fields.pop("responses", None)
    about = fields.pop("prompt", None) or prompt(project)
    made = Task.objects.create(project=project, kind=kind, prompt=about, **fields)
    if kind == Task.Kind.RANK:
        made.responses.set(responses or [response(about) for _ in range(replies)])
    return made


def demonstration(project: Project, author: User, text: str = "", **fields: Any) -> Demonstration:
    about = fields.pop("prompt", None) or prompt(project)
    fields.setdefault("token", uuid.uuid4())
    return Demonstration.objects.create(
        prompt=about, author=author, response=response(about, text, author=author), **fields
    )


def ranking(project: Project, author: User, replies: int = 3, **fields: Any) -> Ranking:
    """A ranking in the order of the response ids, first best."""
    made = fields.pop("task", None) or task(project, Task.Kind.RANK, replies)
    ids = [r.id for r in made.responses.order_by("id")]
    fields.setdefault("groups", [[i] for i in ids])
    fields.setdefault("token", uuid.uuid4())
    return Ranking.objects.create(task=made, prompt=made.prompt, author=author, order_shown=ids, **fields)


def judgment(project: Project, author: User, text: str = "", good: bool = True, **fields: Any) -> Judgment:
    about = fields.pop("prompt", None) or prompt(project)
    fields.setdefault("token", uuid.uuid4())
    return Judgment.objects.create(prompt=about, author=author, response=response(about, text), good=good, **fields)


def model_version(project: Project, kind: ModelVersion.Kind = ModelVersion.Kind.FULL, **fields: Any) -> ModelVersion:
    fields.setdefault("number", project.models.count() + 1)
    fields.setdefault("name", f"{fields.get('stage', 'sft')} {fields['number']}")
    fields.setdefault("stage", "sft")
    fields.setdefault("artefact", f"file:///nowhere/{project.slug}/{fields['number']}")
    fields.setdefault("sha256", "0" * 64)
    fields.setdefault("created_by", project.created_by)
    return ModelVersion.objects.create(project=project, kind=kind, **fields)


def deployment(project: Project, model: ModelVersion | None = None, **fields: Any) -> Deployment:
    fields.setdefault("state", Deployment.State.LIVE)
    fields.setdefault("by", project.created_by)
    return Deployment.objects.create(project=project, model=model or model_version(project), **fields)


def corpus(project: Project, documents: int = 2, **fields: Any) -> Corpus:
    fields.setdefault("name", f"Corpus {next(number)}")
    made = Corpus.objects.create(project=project, created_by=project.created_by, **fields)
    for _ in range(documents):
        text = f"Document {next(number)}. It was a bright cold day."
        Document.objects.create(corpus=made, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())
    return made


def snapshot(project: Project, kind: Snapshot.Kind = Snapshot.Kind.DEMONSTRATIONS, **fields: Any) -> Snapshot:
    fields.setdefault("name", f"Snapshot {next(number)}")
    fields.setdefault("content_hash", "0" * 64)
    fields.setdefault("counts", {"train": 2, "heldout": 1, "characters": 100})
    return Snapshot.objects.create(project=project, kind=kind, created_by=project.created_by, **fields)


def run(project: Project, stage: str = "sft", **fields: Any) -> Run:
    fields.setdefault("number", project.runs.count() + 1)
    fields.setdefault("name", f"{stage} {fields['number']}")
    fields.setdefault("config", {"stage": stage})
    fields.setdefault("created_by", project.created_by)
    return Run.objects.create(project=project, stage=stage, **fields)


def run_with_output(project: Project, name: str, text: str, stage: str = "sample", **fields: Any) -> Run:
    """A run that left a file, which is in the store."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        address = publish_folder(Path(folder), folder_name="outputs", files=hashes_of(Path(folder)))
    return run(project, stage, outputs={name: f"{address}/{name}"}, state=Run.State.SUCCEEDED, **fields)


def export_run(project: Project, files: dict[str, bytes], **fields: Any) -> Run:
    """An export that has succeeded, with its files in the store."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        hashes = hashes_of(Path(folder))
        address = publish_folder(Path(folder), folder_name="outputs", files=hashes)
    fields.setdefault("base", fields.get("base") or model_version(project))
    fields.setdefault("finished_at", timezone.now())
    fields.setdefault("config", {"format": "bf16", "name": ""})
    size = sum(len(content) for content in files.values())
    return run(
        project,
        "export",
        state=Run.State.SUCCEEDED,
        outputs={name: f"{address}/{name}" for name in files},
        result={
            "files": {f"output/{name}": sha256 for name, sha256 in hashes.items()},
            "model": {
                "format": "bf16",
                "bytes": size,
                "checks": ["10 of 10 prompts got the same answers."],
            },
            "seconds": {"total": 3.0},
            "device": "cpu",
            "versions": {},
        },
        **fields,
    )


def consent(user: User, project: Project, **fields: Any) -> Consent:
    fields.setdefault("wording", "What I write here may be used to teach the assistant.")
    return Consent.objects.create(user=user, project=project, **fields)


def conversation(user: User, project: Project, **fields: Any) -> Conversation:
    fields.setdefault("title", f"Conversation {next(number)}")
    fields.setdefault("model", None)
    if fields["model"] is None:
        fields["model"] = model_version(project)
    return Conversation.objects.create(user=user, project=project, **fields)


def message(conversation: Conversation, text: str = "", role: str = "user", **fields: Any) -> Message:
    """A message, complete unless `state` says otherwise; an assistant's is by the conversation's model."""
    if role == "assistant":
        fields.setdefault("model", conversation.model)
    if fields.get("state") == Message.State.STREAMING:
        fields.setdefault("heartbeat_at", timezone.now())
    return Message.objects.create(conversation=conversation, role=role, text=text or "Hello.", **fields)
