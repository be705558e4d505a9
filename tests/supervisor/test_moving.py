"""The data folder of a real site is moved while nothing runs, and everything goes on from the new place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kill.whole import Whole, until

pytestmark = pytest.mark.slow

MAKE_MODEL = """
import tempfile
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from tests import factories
from tests.training.toys import TEXTS
from training.data.chat_format import ChatFormat
from training.models.loading import save_model
from training.stages.tokenizer import learn_vocabulary, wrap
from webapp.accounts.models import ApiToken
from webapp.accounts.tokens import create_api_token
from webapp.registry.services import deploy, register_model
from webapp.datasets.services import create_snapshot
ada = factories.person("Ada")
project = factories.project(ada, "Kite", slug="kite", system_prompt="")
for number in range(40):
    factories.demonstration(project, ada, text=f"the sky is {number}", state="accepted")
torch.manual_seed(0)
tokenizer = wrap(learn_vocabulary(iter(TEXTS), 300, len(TEXTS)), 512)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
))
with tempfile.TemporaryDirectory() as folder:
    save_model(model, tokenizer, Path(folder), ChatFormat(tokenizer).stop_ids)
    full = register_model(project=project, name="full", kind="full", stage="sft", by=ada, folder=Path(folder))
deploy(project=project, model=full, by=ada)
create_snapshot(project=project, kind="demonstrations", by=ada)
result = create_api_token(user=ada, name="Test", scopes=ApiToken.Scope.values)[1]
"""
NAMES = """
from webapp.accounts.models import Project
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.services import deploy, roll_back
from webapp.datasets.models import Snapshot
from webapp.runs.models import Run
from webapp.runs.services import launch_run, request_stop, resume_run
project = Project.objects.get(slug="kite")
ada = project.created_by
"""
LAUNCH = """
base = ModelVersion.objects.get(name={base!r})
config = {{"lora": {{"rank": 2}}, "max_steps": {steps}, "epochs": 1e5, "max_tokens": 64, "log_every": 1, "threads": 1}}
run = launch_run(project=project, stage="sft", by=ada, name={name!r}, base=base, config=config,
                 snapshots=[Snapshot.objects.get(kind="demonstrations")])
result = run.pk
"""
STATE = "run = Run.objects.get(name={name!r}); result = [run.state, run.step, run.error]"
LIVE = "result = Deployment.objects.get(state='live').model.name"
# Where a path could be kept that something goes by: the rows that name files, and what the supervisor writes down. The
# config.json of a run folder is a record, written again whenever the run starts.
TRACES = """
import json
from django.conf import settings
rows = [json.dumps(list(model.objects.values()), default=str) for model in (ModelVersion, Snapshot, Run)]
small = [path for name in ("run", "serve") for path in (settings.HOME / name).rglob("*.json")]
texts = rows + [path.read_text() for path in small]
result = sum({old!r} in text for text in texts)
"""


class Moving(Whole):
    token = ""

    def tell(self, program: str, **values: object) -> Any:
        return self.ask(NAMES + program.format(**values))

    def see_through(self, name: str, wanted: str = "succeeded") -> None:
        def ended() -> bool:
            state, _, error = self.tell(STATE, name=name)
            assert state == wanted or state in ("queued", "claimed", "running"), error
            return state == wanted

        until(ended, self.said)

    def chat(self) -> str:
        """What the live model replies, and why it ended, by OpenAI's API; nothing while no model answers."""
        response = httpx.post(
            f"{self.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {self.token}"},
            json={
                "model": "kite",
                "messages": [{"role": "user", "content": "the cat"}],
                "max_tokens": 5,
                "temperature": 0,
            },
            timeout=60,
        )
        return str(response.json()["choices"][0]) if response.status_code == 200 else ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Moving]:
    site = Moving(tmp_path / "first" / "home")
    site.home.parent.mkdir()
    site.start()
    yield site
    if site.supervisor is not None and site.supervisor.poll() is None:
        site.stop()


def readable_by_others(home: Path) -> list[Path]:
    """But for the database's files, which come and go."""
    paths = [path for top in home.iterdir() if top.name != "postgres" for path in (top, *top.rglob("*"))]
    return [path for path in paths if path.stat().st_mode & 0o077 and not path.is_socket()]


def moved(site: Moving, to: Path) -> Moving:
    assert site.stop() == 0, site.said()
    to.parent.mkdir(parents=True)
    site.home.rename(to)
    site.home.parent.rmdir()
    there = Moving(to)
    there.token = site.token
    there.start()
    return there


def test_a_moved_data_folder_chats_trains_on_resumes_and_rolls_back(site: Moving, tmp_path: Path) -> None:
    site.token = str(site.ask(MAKE_MODEL))
    site.tell(LAUNCH, name="adapter", base="full", steps=3)
    site.see_through("adapter")
    site.tell("result = str(deploy(project=project, model=ModelVersion.objects.get(name='adapter'), by=ada))")
    said = site.chat()
    site.tell(LAUNCH, name="long", base="adapter", steps=4000)
    until(lambda: site.tell(STATE, name="long")[1] > 5, site.said)
    site.tell("request_stop(run=Run.objects.get(name='long'), by=ada); result = 0")
    site.see_through("long", "cancelled")
    stopped_at = site.tell(STATE, name="long")[1]

    assert readable_by_others(site.home) == []

    there = moved(site, tmp_path / "second" / "place" / "home")
    try:
        assert there.tell(TRACES, old=str(tmp_path / "first")) == 0
        until(there.chat, there.said)
        assert there.chat() == said
        there.tell(LAUNCH, name="further", base="adapter", steps=3)
        there.see_through("further")
        there.tell("run = Run.objects.get(name='long'); resume_run(run=run, by=ada); result = 0")
        until(lambda: there.tell(STATE, name="long")[1] > stopped_at, there.said)
        there.tell("request_stop(run=Run.objects.get(name='long'), by=ada); result = 0")
        there.see_through("long", "cancelled")
        steps = (
            "events = Run.objects.get(name='long').events.filter(type='checkpoint'); result = [e.step for e in events]"
        )
        taken = there.tell(steps)
        assert taken[-1] > stopped_at
        assert taken == sorted(set(taken)), "it went on from its checkpoint, and did nothing twice"
        there.tell("result = str(roll_back(deployment=Deployment.objects.get(state='live'), by=ada))")
        assert there.tell(LIVE) == "full"
        until(there.chat, there.said)
        assert not (tmp_path / "first").exists(), "nothing made the old place again"
    finally:
        there.stop()
