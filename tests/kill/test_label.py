"""A label that is sent while something is killed is there once: never lost, never twice."""

from __future__ import annotations

import re
import threading

import httpx
import pytest

from tests.kill.conftest import Sample
from tests.kill.whole import Visitor, Whole, hidden

MAKE_TASKS = """
import uuid
from tests import factories
from annotations.models import Task
from webapp.accounts.models import Project, User
project = User.objects.get(email={email!r}).memberships.get(project__name__startswith="Sample").project
for _ in range({count}):
    prompt = factories.prompt(project, str(uuid.uuid4()))
    factories.task(project, kind=Task.Kind.RANK, prompt=prompt, overlap=1, priority=100)
result = project.slug
"""
COUNT = """
from annotations.models import Lease, Ranking
labels = Ranking.objects.filter(lease_id__in={leases})
result = {{"labels": labels.count(), "leases": labels.values("lease").distinct().count(),
          "submitted": Lease.objects.filter(pk__in={leases}, outcome="submitted").count()}}
"""
DELAYS = (0.0, 0.02, 0.08)  # seconds between sending and killing


@pytest.mark.parametrize("victims", [("web-1", "web-2"), ("postgres",), ("redis",), ("worker-default",)], ids="+".join)
def test_a_label_sent_while_something_is_killed_counts_once(
    whole: Whole, sample: Sample, annotator: Visitor, victims: tuple[str, ...]
) -> None:
    slug = whole.ask(MAKE_TASKS.format(email=sample.annotator[0], count=len(DELAYS)))
    leases = []
    for delay in DELAYS:
        lease, fields = next_ranking(annotator, slug)
        leases.append(lease)
        path = f"/label/leases/{lease}/submit/"
        sending = threading.Thread(target=send_once, args=(annotator, path, fields))
        sending.start()
        sending.join(delay)
        wait_for_another = whole.kill(*victims)
        sending.join()
        annotator.post_until_accepted(path, fields)
        wait_for_another()
    assert whole.ask(COUNT.format(leases=leases)) == {"labels": 3, "leases": 3, "submitted": 3}


def test_a_draft_outlives_every_process(whole: Whole, sample: Sample, annotator: Visitor) -> None:
    slug = whole.ask(MAKE_TASKS.format(email=sample.annotator[0], count=1))
    lease, fields = next_ranking(annotator, slug)
    typed = fields | {"reason": "The second names its source"}
    annotator.post_until_accepted(f"/label/leases/{lease}/draft/", typed)
    whole.kill_supervisor()
    whole.start()
    again = whole.visitor(*sample.annotator)
    assert "The second names its source" in again.get(f"/label/leases/{lease}/")
    again.post_until_accepted(f"/label/leases/{lease}/submit/", fields)
    again.http.close()


def next_ranking(person: Visitor, slug: str) -> tuple[int, dict[str, str]]:
    """The lease of the next task and a filled-in form."""
    person.get(f"/label/?project={slug}&kind=rank")
    page = person.get("/label/")
    found = re.search(r"/label/leases/(\d+)/submit/", page)
    assert found, "there is nothing to rank"
    replies = sorted(set(re.findall(r'name="(rank_\d+)"', page)))
    assert len(replies) >= 2
    ranks = {name: str(place) for place, name in enumerate(replies, 1)}
    return int(found[1]), {"token": hidden(page, "token"), **ranks}


def send_once(person: Visitor, path: str, fields: dict[str, str]) -> None:
    """The first try, whose answer nobody waits for."""
    with httpx.Client(base_url=person.site.url, cookies=person.http.cookies, timeout=10) as http:
        token = http.cookies.get("csrftoken", "")
        try:
            http.post(path, data=fields | {"csrfmiddlewaretoken": token}, headers={"Referer": person.site.url})
        except httpx.TransportError:
            return  # cut off: what the second try is for
