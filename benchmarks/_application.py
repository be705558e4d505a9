"""The application from outside, as people and their scripts use it: who signs up, and what they do over HTTP."""

from __future__ import annotations

import html
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import lxml.html

from webapp.home_folder import ROOT

Json = dict[str, Any]
T = TypeVar("T")
LOOK_SECONDS: Final = 2.0
SCOPES: Final = ("read", "label", "chat", "manage")
ENDED: Final = ("succeeded", "failed", "cancelled")


class Journal:
    """What the steps of some work gave, in their order, in a file if one is named: work that is begun again with the
    same file goes on after the last of them."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.place = path, 0
        self.given: list[Any] = json.loads(path.read_text()) if path and path.is_file() else []

    def once(self, step: Callable[[], T]) -> T:
        """What the step gives, or gave; JSON can hold it. A step has no steps of its own."""
        if self.place == len(self.given):
            self.given.append(step())
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(self.given))
        given: T = self.given[self.place]
        self.place += 1
        return given


class Person:
    """Somebody with an account and an API token. The first one signs up at /accounts/signup/; others follow their
    invitation. Whose journal has them already only sign in."""

    def __init__(
        self, url: str, name: str = "Owner", entrance: str = "/accounts/signup/", journal: Journal | None = None
    ) -> None:
        self.web = httpx.Client(base_url=url, follow_redirects=True, timeout=60)
        signed_up = journal is not None and bool(journal.given)
        account = (journal or Journal()).once(lambda: self.sign_up(name, entrance))
        self.email, password, self.token = account
        if signed_up:
            self.send("/accounts/login/", {"login": self.email, "password": password})
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=120)

    def sign_up(self, name: str, entrance: str) -> list[str]:
        """Email, password and token of a new account."""
        email, password = f"{name.lower()}-{secrets.token_hex(3)}@example.org", secrets.token_urlsafe(12)
        self.web.get(entrance)
        self.send("/accounts/signup/", {"name": name, "email": email, "password1": password})
        self.send("/accounts/reauthenticate/", {"password": password})
        page = self.send("/profile/tokens/", {"name": "benchmark", "scopes": SCOPES, "days": "30"})
        return [email, password, re.findall(r"\b[0-9a-f]{64}\b", page.text)[0]]

    def send(self, path: str, fields: Json) -> httpx.Response:
        """A form, as a browser sends it."""
        self.web.get("/accounts/login/" if path.startswith("/accounts") else "/profile/")
        token = self.web.cookies["csrftoken"]
        headers = {"Referer": str(self.web.base_url)}
        return self.web.post(path, data=fields | {"csrfmiddlewaretoken": token}, headers=headers).raise_for_status()

    def get(self, path: str) -> Json:
        return dict(self.api.get(path).raise_for_status().json())

    def post(self, path: str, body: Json) -> Json:
        """The answer; {} where there is none."""
        answer = self.api.post(path, json=body)
        if answer.is_error:
            raise SystemExit(f"{path}: {answer.text[:500]}")
        return dict(answer.json()) if answer.content else {}

    def new_project(self, name: str, description: str, journal: Journal | None = None) -> Work:
        def made() -> str:
            page = self.send("/projects/new/", {"name": name, "description": description})
            return re.findall(r"/projects/([\w-]+)/", str(page.url))[0]

        journal = journal or Journal()
        return Work(self, journal.once(made), journal)


class Work:
    """What its owner does in a project, once each."""

    def __init__(self, owner: Person, slug: str, journal: Journal) -> None:
        self.owner, self.slug, self.journal = owner, slug, journal

    def invite(self, name: str) -> Person:
        """A new annotator."""
        page = self.owner.send(f"/projects/{self.slug}/invitations/", {"role": "annotator"})
        link = re.findall(r"https?://[^\s\"'<>]+/invitations/[^\s\"'<>]+/", page.text)[0]
        return Person(str(self.owner.web.base_url), name, httpx.URL(html.unescape(link)).path)

    def change_settings(self, **fields: object) -> None:
        """Change settings of the project by its form."""
        address = f"/projects/{self.slug}/settings/"
        page = lxml.html.fromstring(self.owner.web.get(address).raise_for_status().text)
        (form,) = [form for form in page.forms if "rank_overlap" in form.fields]
        self.owner.send(address, dict(form.form_values()) | {name: str(value) for name, value in fields.items()})

    def add_model(self, folder: Path) -> int:
        """The id of the model that a folder on the server becomes."""

        def added() -> int:
            manage("add_model", self.slug, str(folder))
            return int(next(iter(self.rows("models")))["id"])

        return self.journal.once(added)

    def load(self, paths: Sequence[Path], kind: str) -> None:
        """As a person does who sits at the server."""
        self.journal.once(lambda: manage("load", self.slug, *map(str, paths), "--as", kind))

    def rows(self, kind: str) -> Iterator[Json]:
        """All rows of a kind, page by page, newest first."""
        older = None
        while True:
            page = self.owner.get(f"/api/v1/projects/{self.slug}/{kind}/" + (f"?before={older}" if older else ""))
            yield from page["results"]
            if (older := page["older"]) is None:
                return

    def ids(self, kind: str) -> set[int]:
        """Of all rows of a kind."""
        return set(self.journal.once(lambda: [int(row["id"]) for row in self.rows(kind)]))

    def snapshot(self, kind: str, **filters: Any) -> int:
        def made() -> int:
            snapshot = self.owner.post(f"/api/v1/projects/{self.slug}/snapshots/", {"kind": kind, "filters": filters})
            say(f"snapshot of {snapshot['counts']['train']:,} {kind} and {snapshot['counts']['heldout']:,} held out")
            return int(snapshot["id"])

        return self.journal.once(made)

    def run(self, stage: str, config: Json, name: str = "", **inputs: Any) -> Json:
        """Launch a stage and wait for its end; the run as the API tells it."""
        body = {"stage": stage, "name": name or stage, "config": config, **inputs}
        launched = self.journal.once(lambda: int(self.owner.post(f"/api/v1/projects/{self.slug}/runs/", body)["id"]))
        while (run := self.owner.get(f"/api/v1/runs/{launched}/"))["state"] not in ENDED:
            time.sleep(LOOK_SECONDS)
        if run["state"] != "succeeded":
            raise SystemExit(f"{run['name']} {run['state']}: {run['error']}")
        figures = {key: round(value, 3) for key, value in run["result"]["metrics"].items()}
        say(f"{run['name']}: {run['result']['seconds']['total']:.0f} s {json.dumps(figures)}")
        return run

    def output(self, run: Json, name: str) -> list[Json]:
        """The rows of a file that a run left."""
        answer = self.owner.api.get(f"/api/v1/runs/{run['id']}/outputs/{name}/").raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines() if line]


def manage(*arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, check=True, stdout=sys.stderr)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
