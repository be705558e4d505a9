"""A site is backed up while people label and chat, and the backup runs elsewhere beside the original."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import factories
from tests.kill.test_label import next_ranking
from tests.kill.whole import Visitor, Whole, fresh_token, until
from tests.supervisor.test_moving import MAKE_MODEL, NAMES, Moving
from webapp.backups.manifest import FILES, Manifest
from webapp.home_folder import ROOT

pytestmark = pytest.mark.slow
MAKE_WORK = """
from annotations.models import Task
from tests import factories
from webapp.accounts.models import Project, Role
project = Project.objects.get(slug="kite")
people = [factories.member(project, factories.person(name), Role.ANNOTATOR).user for name in ("Ann", "Ben")]
for number in range(300):
    prompt = factories.prompt(project, f"the cat {number}")
    factories.task(project, kind=Task.Kind.RANK, prompt=prompt, overlap=2)
result = [person.email for person in [*people, project.created_by]]
"""
COUNTS = """
from django.db import connection
with connection.cursor() as cursor:
    result = {}
    for table in ("annotations_ranking", "annotations_prompt", "chat_conversation", "chat_message", "accounts_user"):
        cursor.execute(f"SELECT count(*) FROM {table}")
        result[table] = cursor.fetchone()[0]
"""
VERIFY = """
from webapp.registry.artefacts import local_folder
from webapp.registry.models import ModelVersion
result = [str(local_folder(model)) for model in ModelVersion.objects.all()]
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Moving]:
    site = Moving(tmp_path / "original")
    site.start()
    yield site
    assert site.stop() == 0, site.said()


class Busy:
    """Does something over and over, until it is told to end; how often it was acknowledged."""

    def __init__(self, once: Callable[[], object]) -> None:
        self.done = 0
        self._once = once
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._end.is_set():
            self._once()
            self.done += 1

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def labels(person: Visitor) -> Callable[[], object]:
    def once() -> None:
        lease, fields = next_ranking(person, "kite")
        person.post_until_accepted(f"/label/leases/{lease}/submit/", fields)

    return once


def chats(person: Visitor) -> Callable[[], object]:
    """Begins one conversation after another, as fast as the site allows."""

    def once() -> None:
        person.get("/chat/")
        person.post_until_accepted("/chat/", {"text": "the cat", "token": fresh_token()})

    return once


def manage(home: Path, *arguments: str | Path, site: Whole) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=ROOT,
        env=site.environment | {"TUTELAGE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_backup_under_way_of_people_s_work_runs_elsewhere_beside_the_original(site: Moving, tmp_path: Path) -> None:
    site.token = str(site.ask(MAKE_MODEL))
    ann, ben, ada = (site.visitor(email, factories.PASSWORD) for email in site.ask(MAKE_WORK))
    busy = [Busy(labels(ann)), Busy(labels(ben)), Busy(chats(ada))]
    until(lambda: all(one.done > 2 for one in busy), site.said)
    acknowledged = [one.done for one in busy]
    processes = {name: child["pid"] for name, child in site.processes().items()}
    manage(site.home, "backup", tmp_path / "backups", site=site)
    later = [one.done for one in busy]
    until(lambda: all(one.done > before for one, before in zip(busy, later, strict=True)), site.said)
    (folder,) = (tmp_path / "backups").glob("2*")
    manifest = Manifest.read(folder)
    assert manifest.rows["annotations_ranking"] >= sum(acknowledged[:2])
    assert manifest.rows["chat_conversation"] >= acknowledged[2]
    assert manifest.references
    assert [name for name in manifest.references if not (folder / FILES / name).exists()] == []
    assert "is whole" in manage(site.home, "backup", "--check", folder, site=site)

    place = Moving(tmp_path / "elsewhere")
    place.token = site.token
    manage(place.home, "restore", tmp_path / "backups", site=site)
    place.start()
    try:
        counted = place.ask(COUNTS)
        assert counted == {table: manifest.rows[table] for table in counted}
        assert all(path.startswith(str(place.home)) for path in place.ask(VERIFY))
        until(place.chat, place.said)
        assert place.ask(NAMES + "result = project.deployments.get(state='live').model.name") == "full"
    finally:
        assert place.stop() == 0, place.said()
    for one in busy:
        one.end()
    assert {name: child["pid"] for name, child in site.processes().items()} == processes, "nothing of it was touched"
    assert [one.done for one in busy] > later
