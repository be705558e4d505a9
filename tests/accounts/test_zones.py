"""Times as the person's clock shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from annotations.models import Lease
from tests import factories
from webapp.accounts.models import Guidelines, Project, User
from webapp.accounts.zones import zone_named, zone_of


@pytest.fixture
def saved(project: Project) -> None:
    """Guidelines of an hour that is another day in Tokyo and in Los Angeles."""
    Guidelines.objects.filter(project=project).update(created_at=datetime(2026, 11, 25, 23, 31, tzinfo=UTC))


def page(client: Client, address: Any = "/projects/kite/guidelines/") -> Any:
    return client.get(address).content.decode()


def test_times_are_in_the_browsers_zone(client: Client, project: Project, ann: User, saved: Any) -> None:
    client.force_login(ann)
    assert "25 November 2026, 23:31" in page(client)

    client.cookies["time_zone"] = "Asia/Tokyo"
    shown = page(client)
    assert ">26 November 2026, 08:31</time>" in shown
    assert 'title="26 November 2026, 08:31:00 JST (Asia/Tokyo)"' in shown


def test_the_zone_chosen_in_the_profile_comes_before_the_browsers(
    client: Client, project: Project, ann: User, saved: Any
) -> None:
    client.force_login(ann)
    client.cookies["time_zone"] = "Asia/Tokyo"
    assert "Same as this device (Asia/Tokyo)" in page(client, "/profile/")
    client.post("/profile/", {"name": "Ann", "time_zone": "America/Los_Angeles"})

    assert "25 November 2026, 15:31" in page(client)
    assert User.objects.get(pk=ann.pk).time_zone == "America/Los_Angeles"


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "\x00", "Europe", "a" * 5000])
def test_what_is_no_zone_counts_as_none(client: Client, project: Project, ann: User, saved: Any, name: Any) -> None:
    assert zone_named(name) is None
    client.force_login(ann)
    client.cookies["time_zone"] = name.replace("\x00", "%00")
    assert "25 November 2026, 23:31" in page(client)
    client.post("/profile/", {"name": "Ann", "time_zone": name})
    assert User.objects.get(pk=ann.pk).time_zone == ""


def test_a_database_that_does_not_answer_leaves_the_browsers_zone() -> None:
    def unanswered() -> User:
        raise OperationalError("the database is starting up")

    request = RequestFactory().get("/")
    request.COOKIES["time_zone"] = "Asia/Tokyo"
    request.user = SimpleLazyObject(unanswered)  # type: ignore[assignment]  # as the middleware does
    assert str(zone_of(request)) == "Asia/Tokyo"


def test_one_persons_zone_does_not_reach_the_next_request(
    client: Client, project: Project, ann: User, saved: Any
) -> None:
    client.force_login(ann)
    client.cookies["time_zone"] = "Asia/Tokyo"
    page(client)

    assert timezone.get_current_timezone_name() == "UTC"


def test_today_begins_at_the_persons_midnight(client: Client, project: Project, ann: User) -> None:
    now = timezone.now()
    lease = Lease.objects.create(task=factories.task(project), person=ann, until=now, outcome="submitted")
    early, late = sorted(
        ["Pacific/Kiritimati", "Pacific/Pago_Pago"], key=lambda name: midnight(now, name)
    )  # 25 hours apart, so in one of them what lies between the two midnights was yesterday
    Lease.objects.filter(pk=lease.pk).update(ended_at=midnight(now, late) - timedelta(minutes=1))
    client.force_login(ann)

    counted = {}
    for name in (early, late):
        client.cookies["time_zone"] = name
        counted[name] = client.get("/").context["own"]["today"]
    assert counted == {early: 1, late: 0}


def midnight(now: Any, name: Any) -> Any:
    return timezone.localtime(now, zone_named(name)).replace(hour=0, minute=0, second=0, microsecond=0)


def test_the_api_tells_times_in_utc_whatever_the_zone(client: Client, project: Project, ada: User, saved: Any) -> None:
    client.force_login(ada)
    client.cookies["time_zone"] = "Asia/Tokyo"
    factories.prompt(project)

    assert client.get("/api/v1/projects/kite/prompts/").json()["results"][0]["created_at"].endswith("Z")
