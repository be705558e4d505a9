"""The measurements of benchmarks/label.py; imported once Django is set up."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from annotations.models import Lease, Prompt, Response, Task
from annotations.services.labels import submit_ranking
from annotations.services.leases import lease_next, release
from annotations.services.prompts import add_prompts, add_responses
from annotations.services.tasks import open_rank_tasks
from webapp.accounts.models import Guidelines, Membership, Project, Role, User

SECRET = "a" * 32
LEASE = re.compile(r'data-lease="(\d+)"')
TOKEN = re.compile(r'name="token" value="([^"]+)"')
RANK = re.compile(r'name="(rank_\d+)" value="1"')


def measure(tasks: int, labels: int, clients: int) -> dict[str, float]:
    start = time.perf_counter()
    people, project = people_and_tasks(tasks, clients)
    figures: dict[str, float] = {"tasks": tasks, "fill_s": round(time.perf_counter() - start, 1)}
    figures |= rates("service_1", [service(people[0], project)], labels)
    figures |= rates(f"service_{clients}", [service(person, project) for person in people], labels)
    server = Server()
    try:
        figures |= rates("http_1", [http(people[0], server.url)], labels)
        figures |= rates(f"http_{clients}", [http(person, server.url) for person in people], labels)
    finally:
        server.stop()
    figures["next_at_the_end_ms"] = next_at_the_end(people[-1], project)
    return figures


def people_and_tasks(tasks: int, clients: int) -> tuple[list[User], Project]:
    """A project with its annotators and `tasks` sets of four replies to rank."""
    owner = User.objects.create_user("owner@example.org")
    project = Project.objects.create(name="Kite", slug="kite", created_by=owner)
    Guidelines.objects.create(project=project, version=1, text="Be correct, be kind, be brief.", created_by=owner)
    people = [User.objects.create_user(f"person{n}@example.org") for n in range(clients)]
    for person in people:
        Membership.objects.create(project=project, user=person, role=Role.ANNOTATOR)
    prompts = add_prompts(
        project=project,
        conversations=[[{"role": "user", "content": f"What is fact number {n} about kites?"}] for n in range(tasks)],
        source=Prompt.Source.IMPORT,
    )
    text = "A kite flies because wind pushes on its tilted face, and the line keeps it tilted. " * 3
    replies = add_responses(
        responses=[Response(prompt=prompt, text=f"{text} ({k})") for prompt in prompts for k in range(4)]
    )
    open_rank_tasks(sets=[replies[n : n + 4] for n in range(0, len(replies), 4)])
    return people, project


def rates(name: str, workers: list[Callable[[], float]], labels: int) -> dict[str, float]:
    """Labels a second of all workers together, and how long one label takes: median and 95th percentile, ms."""

    def work(one: Callable[[], float]) -> list[float]:
        try:
            return [one() for _ in range(labels // len(workers))]
        finally:
            connection.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(len(workers)) as pool:
        times = [seconds for result in pool.map(work, workers) for seconds in result]
    elapsed = time.perf_counter() - start
    return {
        f"{name}_per_s": round(len(times) / elapsed, 1),
        f"{name}_ms_p50": round(1000 * statistics.median(times), 1),
        f"{name}_ms_p95": round(1000 * statistics.quantiles(times, n=20)[-1], 1),
    }


def service(person: User, project: Project) -> Callable[[], float]:
    def one() -> float:
        start = time.perf_counter()
        lease = lease_next(person=person, project=project)
        assert lease is not None  # noqa: S101
        submit_ranking(lease=lease, token=uuid.uuid4(), groups=[[r] for r in lease.order_shown])
        return time.perf_counter() - start

    return one


def http(person: User, url: str) -> Callable[[], float]:
    signed_in = Client()
    signed_in.force_login(person)
    session = signed_in.cookies[settings.SESSION_COOKIE_NAME].value
    client = httpx.Client(
        base_url=url,
        cookies={settings.SESSION_COOKIE_NAME: session, "csrftoken": SECRET},
        headers={"X-CSRFToken": SECRET, "HX-Request": "true"},
        timeout=30,
    )
    page = client.get("/label/").raise_for_status().text

    def one() -> float:
        nonlocal page
        fields = {name: str(n) for n, name in enumerate(RANK.findall(page), 1)} | {"token": TOKEN.findall(page)[0]}
        start = time.perf_counter()
        page = client.post(f"/label/leases/{LEASE.findall(page)[0]}/submit/", data=fields).raise_for_status().text
        return time.perf_counter() - start

    return one


def next_at_the_end(person: User, project: Project) -> float:
    """Milliseconds to find the one task that is left for a person who has answered all others, which are still open."""
    later = timezone.now() + timedelta(hours=1)
    Lease.objects.filter(person=person, outcome=Lease.Outcome.HELD).delete()
    untouched = Task.objects.filter(project=project, leases=None).order_by("-id").values_list("id", flat=True)
    Lease.objects.bulk_create(
        Lease(task_id=task_id, person=person, until=later, outcome=Lease.Outcome.SUBMITTED, seat=1)
        for task_id in untouched[1:]
    )
    others = Task.objects.filter(project=project).exclude(pk__in=untouched[:1]).exclude(leases__person=person)
    Lease.objects.bulk_create(
        Lease(task_id=task_id, person=person, until=later, outcome=Lease.Outcome.SUBMITTED)
        for task_id in others.values_list("id", flat=True)
    )
    times = []
    for _ in range(20):
        start = time.perf_counter()
        lease = lease_next(person=person, project=project)
        times.append(time.perf_counter() - start)
        assert lease is not None  # noqa: S101
        release(lease=lease)
    return round(1000 * statistics.median(times), 1)


class Server:
    """uvicorn over the measured database, in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        base, _, query = os.environ["DATABASE_URL"].partition("?")
        database = f"{base.rpartition('/')[0]}/{connection.settings_dict['NAME']}" + (f"?{query}" if query else "")
        command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--port", str(port)]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [*command, "--log-level", "error", "--lifespan", "off"], env=os.environ | {"DATABASE_URL": database}
        )
        self._wait(port)

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise SystemExit("label: the web server did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
