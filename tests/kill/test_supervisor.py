"""Any process may be killed: another takes its place, and nobody has to clean up."""

from __future__ import annotations

import signal

import httpx
import psutil
import pytest

from tests.kill.whole import Whole, until

EVERY = ("web-1", "worker-default", "worker-train", "scheduler", "model-server", "postgres", "redis")


def pages_answer(site: Whole) -> bool:
    try:
        return httpx.get(f"{site.url}/accounts/login/", timeout=10, follow_redirects=True).status_code == 200
    except httpx.TransportError:
        return False


def make_project(site: Whole, slug: str) -> None:
    site.ask(f"from tests import factories\nresult = factories.project(factories.person({slug!r}), {slug!r}).pk")


def is_there(site: Whole, slug: str) -> bool:
    found = "from webapp.accounts.models import Project\nresult = Project.objects.filter(slug={slug!r}).count()"
    return site.ask(found.format(slug=slug)) == 1


@pytest.mark.parametrize("name", EVERY)
def test_a_killed_process_is_replaced_and_pages_answer(whole: Whole, name: str) -> None:
    wait_for_another = whole.kill(name)
    wait_for_another()
    until(lambda: pages_answer(whole), whole.said)


def test_pages_answer_while_one_web_process_is_gone(whole: Whole) -> None:
    wait_for_another = whole.kill("web-2")
    assert pages_answer(whole)
    wait_for_another()


def test_what_was_written_is_there_after_the_database_was_killed(whole: Whole) -> None:
    make_project(whole, "before")
    whole.kill("postgres")()
    assert is_there(whole, "before")


def test_a_killed_supervisor_takes_all_with_it_and_the_next_start_has_all_data(whole: Whole) -> None:
    make_project(whole, "kept")
    family = whole.kill_supervisor()
    until(lambda: not any(alive(process) for process in family))
    whole.start()
    assert pages_answer(whole)
    assert (
        whole.ask("from webapp.accounts.models import Project\nresult = Project.objects.filter(slug='kept').count()")
        == 1
    )


def test_ctrl_c_ends_every_process_and_the_next_start_has_all_data(whole: Whole) -> None:
    assert whole.supervisor is not None
    make_project(whole, "steady")
    family = psutil.Process(whole.supervisor.pid).children(recursive=True)
    assert whole.stop() == 0
    assert not any(alive(process) for process in family)
    assert not (whole.home / "run" / "endpoints.json").exists()
    whole.start()
    assert (
        whole.ask("from webapp.accounts.models import Project\nresult = Project.objects.filter(slug='steady').count()")
        == 1
    )


def test_a_frozen_process_does_not_keep_the_others_from_stopping(whole: Whole) -> None:
    whole.send(signal.SIGSTOP, "worker-default")
    assert whole.stop() == 0
    assert "worker-default  did not stop in time and was killed" in whole.said()
    whole.start()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
