from __future__ import annotations

import pytest
from django.test import Client

from webapp.accounts import memberships, services
from webapp.accounts.models import Project, Role, User
from webapp.errors import BadInput, Conflict, NotAllowed, NotFound


def test_a_new_project_is_owned_and_has_guidelines(ada: User) -> None:
    project = services.create_project(user=ada, name="Museum guide")

    assert project.slug == "museum-guide"
    assert project.memberships.get().role == Role.OWNER
    assert project.guidelines.get().version == 1


def test_a_second_project_of_the_same_name_gets_another_address(ada: User) -> None:
    slugs = [services.create_project(user=ada, name="New").slug for _ in range(3)]

    assert slugs == ["new-2", "new-3", "new-4"]  # /projects/new/ is a page of its own


def test_a_name_without_a_letter_still_gets_an_address(ada: User) -> None:
    assert services.create_project(user=ada, name="日本").slug == "project"


def test_a_setting_out_of_range_says_which_and_changes_nothing(project: Project) -> None:
    with pytest.raises(BadInput, match=r"replies to rank: .*9"):
        services.change_settings(project=project, changes={"replies_to_rank": 30, "name": "Other"})

    project.refresh_from_db()
    assert (project.replies_to_rank, project.name) == (4, "Kite")


def test_what_is_no_setting_cannot_be_set(project: Project) -> None:
    with pytest.raises(BadInput, match="no project setting called slug"):
        services.change_settings(project=project, changes={"slug": "x"})


def test_guidelines_get_a_version_only_when_they_change(project: Project, mo: User) -> None:
    again = services.set_guidelines(project=project, text="Be correct, be kind, be brief.\n", user=mo)
    changed = services.set_guidelines(project=project, text="Be kind.", user=mo)

    assert (again.version, changed.version) == (1, 2)
    assert project.guidelines.get(version=1).text == "Be correct, be kind, be brief."


def test_empty_guidelines_are_refused(project: Project, mo: User) -> None:
    with pytest.raises(BadInput, match="cannot be empty"):
        services.set_guidelines(project=project, text=" \n", user=mo)


def test_a_manager_cannot_make_or_unmake_owners(project: Project, ada: User, mo: User, ann: User) -> None:
    with pytest.raises(NotAllowed):
        memberships.change_role(project=project, user_id=ann.pk, role=Role.OWNER, by=mo)
    with pytest.raises(NotAllowed):
        memberships.remove_member(project=project, user_id=ada.pk, by=mo)
    with pytest.raises(NotAllowed):
        memberships.invite(project=project, role=Role.OWNER, by=mo)


def test_the_last_owner_stays(project: Project, ada: User) -> None:
    with pytest.raises(Conflict, match="only owner"):
        memberships.remove_member(project=project, user_id=ada.pk, by=ada)
    with pytest.raises(Conflict, match="only owner"):
        memberships.change_role(project=project, user_id=ada.pk, role=Role.ANNOTATOR, by=ada)


def test_an_owner_may_go_once_there_is_another(project: Project, ada: User, mo: User) -> None:
    memberships.change_role(project=project, user_id=mo.pk, role=Role.OWNER, by=ada)
    memberships.remove_member(project=project, user_id=ada.pk, by=ada)

    assert not project.memberships.filter(user=ada).exists()


def test_somebody_who_is_no_member_cannot_be_removed(project: Project, ada: User, stranger: User) -> None:
    with pytest.raises(NotFound):
        memberships.remove_member(project=project, user_id=stranger.pk, by=ada)


def test_an_archived_project_leaves_the_lists_and_comes_back(client: Client, project: Project, ada: User) -> None:
    client.force_login(ada)
    client.post("/projects/kite/archive/")
    assert b"Archived" in client.get("/projects/").content

    client.post("/projects/kite/restore/")
    project.refresh_from_db()
    assert project.archived_at is None


def test_the_settings_form_saves_what_was_changed(client: Client, project: Project, ada: User) -> None:
    client.force_login(ada)
    page = client.get("/projects/kite/settings/")
    fields = {name: page.context["form"][name].value() or "" for name in page.context["form"].fields}

    client.post("/projects/kite/settings/", {**fields, "rank_overlap": 5})

    project.refresh_from_db()
    assert project.rank_overlap == 5


def test_only_the_changed_guidelines_make_a_version_in_the_browser(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    client.post("/projects/kite/guidelines/edit/", {"text": "Be *very* kind."})

    assert b"Be <em>very</em> kind." in client.get("/projects/kite/guidelines/").content
    assert b"Be correct" in client.get("/projects/kite/guidelines/?version=1").content
    assert client.get("/projects/kite/guidelines/?version=9").status_code == 404


def test_the_preview_shows_no_scripts(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    page = client.post("/projects/kite/guidelines/preview/", {"text": "**a** <script>alert(1)</script>"}).content

    assert b"<strong>a</strong>" in page
    assert b"<script" not in page


def test_a_project_is_made_in_the_browser_by_whoever_runs_the_installation(
    client: Client, root: User, ada: User
) -> None:
    client.force_login(root)
    assert client.post("/projects/new/", {"name": "Guide"}).headers["Location"] == "/projects/guide/"

    client.force_login(ada)
    assert client.post("/projects/new/", {"name": "Other"}).status_code == 403
