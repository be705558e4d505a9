"""Two people edit one text."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.narrowing import existing
from webapp.accounts import services
from webapp.accounts.models import Project, User
from webapp.edits import DiffLine, EditConflict, compare_lines


def test_lines_of_both_texts_stand_in_one_column() -> None:
    assert compare_lines("Be kind.\nBe brief.", "Be kind.\r\nBe exact.\r\n") == [
        DiffLine("both", "Be kind."),
        DiffLine("saved", "Be brief."),
        DiffLine("yours", "Be exact."),
    ]


def test_long_texts_are_shown_one_after_the_other() -> None:
    lines = compare_lines("a\n" * 3000, "b\n" * 3000)
    assert [lines[0].origin, lines[-1].origin, len(lines)] == ["saved", "yours", 6000]


def began(page: Any) -> Any:
    return {"began_from": page.context["newest"].version}


def test_the_second_to_save_guidelines_is_shown_both_texts_and_loses_nothing(
    client: Client, project: Project, mo: User
) -> None:
    client.force_login(mo)
    address = "/projects/kite/guidelines/edit/"
    first, second = began(client.get(address)), began(client.get(address))
    client.post(address, {"text": "Name the year.", **first})

    page = client.post(address, {"text": "Name the painter.", **second})
    assert page.status_code == 409
    assert existing(project.guidelines.first()).text == "Name the year."
    shown = page.content.decode()
    assert shown.count("Name the painter.") >= 2  # in the comparison and in the form
    assert "Name the year." in shown

    assert client.post(address, {"text": "Name the year and the painter.", **began(page)}).status_code == 302
    assert existing(project.guidelines.first()).version == 3


def test_two_who_save_the_same_text_do_not_clash(project: Project, mo: User, ada: User) -> None:
    services.set_guidelines(project=project, text="Be kind.", user=mo, began_from=1)

    assert services.set_guidelines(project=project, text="Be kind.", user=ada, began_from=1).version == 2


def settings_of(page: Any) -> Any:
    """The fields of the settings page as a browser sends them, with what they began from."""
    form = page.context["form"]
    fields = {name: form[name].value() for name in form.fields}
    return fields | {form[name].html_initial_name: form[name].value() for name in form.fields}


def test_changes_of_two_people_to_different_settings_are_both_kept(client: Client, project: Project, ada: User) -> None:
    client.force_login(ada)
    first, second = (settings_of(client.get("/projects/kite/settings/")) for _ in range(2))
    client.post("/projects/kite/settings/", {**first, "system_prompt": "You know kites."})
    client.post("/projects/kite/settings/", {**second, "rank_overlap": 5})

    project.refresh_from_db()
    assert (project.system_prompt, project.rank_overlap) == ("You know kites.", 5)


def test_changes_of_two_people_to_one_setting_are_shown_to_the_second(
    client: Client, project: Project, ada: User
) -> None:
    client.force_login(ada)
    first, second = (settings_of(client.get("/projects/kite/settings/")) for _ in range(2))
    client.post("/projects/kite/settings/", {**first, "system_prompt": "You know kites.", "temperature": "0.7"})
    page = client.post("/projects/kite/settings/", {**second, "system_prompt": "You know\r\nboats."})

    assert page.status_code == 409
    assert [clash.label for clash in page.context["clashes"]] == ["System prompt"]
    form = page.context["form"]
    assert form["system_prompt"].value() == "You know\r\nboats."
    assert form["temperature"].value() == 0.7  # what the other changed beside it

    sent = {name: form[name].value() for name in form.fields}
    sent |= {form[name].html_initial_name: form.data[form[name].html_initial_name] for name in form.fields}
    client.post("/projects/kite/settings/", sent)
    project.refresh_from_db()
    assert (project.system_prompt, project.temperature) == ("You know\r\nboats.", 0.7)


def test_a_change_from_a_value_that_has_changed_is_refused_whole(project: Project) -> None:
    services.change_settings(project=project, changes={"rank_overlap": 5})

    with pytest.raises(EditConflict, match="rank overlap"):
        services.change_settings(
            project=project, changes={"rank_overlap": 4, "name": "Boat"}, began_from={"rank_overlap": 3, "name": "Kite"}
        )
    project.refresh_from_db()
    assert (project.rank_overlap, project.name) == (5, "Kite")
