"""Invitations: who may make one, who may join by one, and what ends it.

Over 300 lines: all cases share the link and the people around it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tests import factories
from webapp.accounts import memberships, services
from webapp.accounts.models import Invitation, Membership, Project, Role, User
from webapp.accounts.selectors import open_invitations, why_closed
from webapp.errors import Conflict, NotAllowed

SIGN_UP = {"name": "Nia", "email": "nia@example.org", "password1": factories.PASSWORD}


@pytest.fixture
def secret(project: Project, ada: User) -> Any:
    return memberships.invite(project=project, role=Role.ANNOTATOR, by=ada)[1]


def test_the_database_holds_only_the_hash_of_a_links_secret(project: Project, ada: User) -> None:
    invitation, secret = memberships.invite(project=project, role=Role.TESTER, by=ada)

    assert len(secret) >= 40
    assert secret not in str(Invitation.objects.filter(pk=invitation.pk).values())


def test_accepting_makes_a_member_once(project: Project, ada: User, stranger: User) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.TESTER, by=ada)
    memberships.accept_invitation(user=stranger, invitation=invitation)
    memberships.accept_invitation(user=stranger, invitation=invitation)

    assert Membership.objects.get(project=project, user=stranger).role == Role.TESTER


def test_a_link_works_for_one_person(project: Project, ada: User, stranger: User) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.TESTER, by=ada)
    memberships.accept_invitation(user=stranger, invitation=invitation)

    with pytest.raises(Conflict, match="already been taken up"):
        memberships.accept_invitation(user=factories.person("Zoe"), invitation=invitation)


def test_a_withdrawn_or_expired_link_does_not_work(project: Project, ada: User, stranger: User) -> None:
    withdrawn, _ = memberships.invite(project=project, role=Role.TESTER, by=ada)
    memberships.revoke_invitation(project=project, invitation_id=withdrawn.pk)
    expired, _ = memberships.invite(project=project, role=Role.TESTER, by=ada, lifetime=timedelta(seconds=-1))

    with pytest.raises(Conflict, match="withdrawn"):
        memberships.accept_invitation(user=stranger, invitation=withdrawn)
    with pytest.raises(Conflict, match="expired"):
        memberships.accept_invitation(user=stranger, invitation=expired)


def test_a_link_for_one_address_is_for_that_person_only(project: Project, ada: User, stranger: User) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.TESTER, by=ada, email="Zoe@Example.org")

    with pytest.raises(NotAllowed, match=r"zoe@example\.org"):
        memberships.accept_invitation(user=stranger, invitation=invitation)
    memberships.accept_invitation(user=factories.person("Zoe"), invitation=invitation)


def test_a_members_role_is_not_lowered_by_a_link(project: Project, ada: User, mo: User) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.TESTER, by=ada)

    assert memberships.accept_invitation(user=mo, invitation=invitation).role == Role.MANAGER
    invitation.refresh_from_db()
    assert not why_closed(invitation)


def test_the_first_to_sign_up_runs_the_installation(client: Client, db: None) -> None:
    client.post("/accounts/signup/", SIGN_UP)

    first = User.objects.get()
    assert (first.is_superuser, first.name) == (True, "Nia")


def test_after_the_first_nobody_signs_up_without_a_link(client: Client, root: User) -> None:
    client.post("/accounts/signup/", SIGN_UP)

    assert b"need an invitation" in client.get("/accounts/signup/").content
    assert User.objects.count() == 1


def test_the_loser_of_the_race_to_be_first_is_turned_away(root: User) -> None:
    late = User(email="late@example.org")

    with pytest.raises(NotAllowed, match="invitation link"):
        services.settle_new_person(user=late, invitation=None)
    assert User.objects.count() == 1


def test_a_link_leads_through_sign_up_into_the_project(root: User, project: Project, secret: Any) -> None:
    browser = Client()
    assert b"Join Kite" in browser.get(f"/invitations/{secret}/").content

    browser.post("/accounts/signup/", SIGN_UP)

    nia = User.objects.get(email="nia@example.org")
    assert not nia.is_superuser
    assert Membership.objects.get(project=project, user=nia).role == Role.ANNOTATOR
    assert browser.get("/projects/kite/").status_code == 200


def test_sign_up_by_a_bound_link_takes_only_its_address(
    client: Client, root: User, project: Project, ada: User
) -> None:
    _, secret = memberships.invite(project=project, role=Role.TESTER, by=ada, email="zoe@example.org")
    client.get(f"/invitations/{secret}/")

    page = client.post("/accounts/signup/", SIGN_UP)

    assert b"This invitation is for zoe@example.org." in page.content


def test_somebody_with_an_account_joins_with_one_click(
    client: Client, project: Project, secret: Any, stranger: User
) -> None:
    client.force_login(stranger)
    client.post(f"/invitations/{secret}/accept/")

    assert project.memberships.filter(user=stranger).exists()
    assert client.get(f"/invitations/{secret}/").headers["Location"] == "/"  # the link leads the person in again

    client.force_login(factories.person("Zoe"))
    assert b"already been taken up" in client.get(f"/invitations/{secret}/").content


def test_a_person_may_belong_to_two_projects(client: Client, project: Project, secret: Any, stranger: User) -> None:
    other = factories.project(name="Boat", slug="boat")
    factories.member(other, stranger)
    client.force_login(stranger)
    client.post(f"/invitations/{secret}/accept/")

    assert set(stranger.memberships.values_list("project__slug", flat=True)) == {"boat", "kite"}


def test_a_member_who_opens_a_link_is_told_so_and_leaves_it_open(
    client: Client, project: Project, secret: Any, ann: User
) -> None:
    client.force_login(ann)

    assert b"You are already a member of Kite" in client.get(f"/invitations/{secret}/").content
    assert len(open_invitations(project)) == 1


def test_a_link_for_another_address_says_which_and_offers_to_sign_out(
    client: Client, project: Project, ada: User, stranger: User
) -> None:
    _, secret = memberships.invite(project=project, role=Role.TESTER, by=ada, email="zoe@example.org")
    client.force_login(stranger)
    page = client.get(f"/invitations/{secret}/").content.decode()

    assert "This invitation is for zoe@example.org" in page
    assert "Sign out" in page
    assert "Join as" not in page


@pytest.mark.parametrize("loss", ["demoted", "removed", "left", "deactivated"])
def test_a_link_ends_with_its_makers_right_to_invite(
    project: Project, ada: User, mo: User, stranger: User, loss: Any
) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.ANNOTATOR, by=mo)
    if loss == "demoted":
        memberships.change_role(project=project, user_id=mo.pk, role=Role.TESTER, by=ada)
    elif loss == "deactivated":
        User.objects.filter(pk=mo.pk).update(is_active=False)
    else:
        memberships.remove_member(project=project, user_id=mo.pk, by=ada if loss == "removed" else mo)

    assert open_invitations(project) == []
    with pytest.raises(Conflict, match="withdrawn"):
        memberships.accept_invitation(user=stranger, invitation=invitation)
    with pytest.raises(Conflict, match="withdrawn"):
        memberships.accept_invitation(user=mo, invitation=invitation)


def test_a_makers_later_promotion_does_not_bring_a_link_back(
    project: Project, ada: User, mo: User, stranger: User
) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.ANNOTATOR, by=mo)
    memberships.change_role(project=project, user_id=mo.pk, role=Role.TESTER, by=ada)
    memberships.change_role(project=project, user_id=mo.pk, role=Role.MANAGER, by=ada)

    with pytest.raises(Conflict, match="withdrawn"):
        memberships.accept_invitation(user=stranger, invitation=invitation)


def test_an_owner_who_becomes_a_manager_keeps_only_the_links_that_managers_make(
    project: Project, ada: User, mo: User
) -> None:
    memberships.change_role(project=project, user_id=mo.pk, role=Role.OWNER, by=ada)
    memberships.invite(project=project, role=Role.OWNER, by=mo)
    kept, _ = memberships.invite(project=project, role=Role.TESTER, by=mo)
    memberships.change_role(project=project, user_id=mo.pk, role=Role.MANAGER, by=ada)

    assert open_invitations(project) == [kept]


def test_removing_a_member_withdraws_the_links_to_their_addresses_and_a_new_one_works(
    project: Project, ada: User, ann: User
) -> None:
    old, _ = memberships.invite(project=project, role=Role.MANAGER, by=ada, email="ann@example.org")
    memberships.remove_member(project=project, user_id=ann.pk, by=ada)
    with pytest.raises(Conflict, match="withdrawn"):
        memberships.accept_invitation(user=ann, invitation=old)

    again, _ = memberships.invite(project=project, role=Role.TESTER, by=ada, email="ann@example.org")
    assert memberships.accept_invitation(user=ann, invitation=again).role == Role.TESTER


def test_an_archived_project_takes_no_new_members(project: Project, ada: User, stranger: User) -> None:
    invitation, _ = memberships.invite(project=project, role=Role.TESTER, by=ada)
    services.archive_project(project=project)

    with pytest.raises(Conflict, match="archived"):
        memberships.accept_invitation(user=stranger, invitation=invitation)


def test_only_managers_invite(project: Project, ann: User) -> None:
    with pytest.raises(NotAllowed):
        memberships.invite(project=project, role=Role.TESTER, by=ann)


def test_reloading_the_page_with_a_link_shows_the_same_link_again(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    form = {"role": "tester", "email": "", "form_token": client.get("/projects/kite/members/").context["form_token"]}
    first, again = (client.post("/projects/kite/invitations/", form).context["link"] for _ in range(2))
    other = client.post("/projects/kite/invitations/", {**form, "role": "annotator"}).context["link"]

    assert first == again != other
    assert Invitation.objects.count() == 2


def test_a_personal_links_address_is_filled_in_at_sign_up(
    client: Client, root: User, project: Project, ada: User
) -> None:
    _, secret = memberships.invite(project=project, role=Role.TESTER, by=ada, email="zoe@example.org")
    client.get(f"/invitations/{secret}/")

    assert client.get("/accounts/signup/").context["form"]["email"].value() == "zoe@example.org"


def test_an_invitation_never_makes_the_person_who_runs_the_installation(
    client: Client, project: Project, secret: Any
) -> None:
    client.get(f"/invitations/{secret}/")
    client.post("/accounts/signup/", SIGN_UP)

    nia = User.objects.get(email="nia@example.org")
    assert not nia.is_superuser
    assert project.memberships.filter(user=nia).exists()


def test_an_unknown_link_says_so(client: Client, root: User) -> None:
    page = client.get("/invitations/nonsense/")

    assert page.status_code == 404
    assert b"Ask whoever sent it" in page.content


def test_the_page_of_members_makes_shows_and_withdraws_a_link(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)
    page = client.post("/projects/kite/invitations/", {"role": "tester", "email": ""})
    link = page.context["link"]

    assert link.encode() in page.content
    assert link.encode() not in client.get("/projects/kite/members/").content
    client.post(f"/projects/kite/invitations/{Invitation.objects.get().pk}/revoke/")
    assert b"withdrawn" in client.get(link).content


def test_roles_are_set_and_members_removed_in_the_browser(
    client: Client, project: Project, mo: User, ann: User
) -> None:
    client.force_login(mo)
    client.post(f"/projects/kite/members/{ann.pk}/role/", {"role": "tester"})
    assert project.memberships.get(user=ann).role == Role.TESTER

    client.post(f"/projects/kite/members/{ann.pk}/remove/")
    assert not project.memberships.filter(user=ann).exists()
    client.post("/projects/kite/leave/")
    assert not project.memberships.filter(user=mo).exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_who_sign_up_at_once_exactly_one_runs_the_installation() -> None:
    barrier = Barrier(4)

    def sign_up(number: int) -> str:
        barrier.wait()
        try:
            services.settle_new_person(user=User(email=f"p{number}@example.org"), invitation=None)
        except NotAllowed:
            return "turned away"
        finally:
            connection.close()
        return "first"

    with ThreadPoolExecutor(4) as people:
        outcomes = sorted(people.map(sign_up, range(4)))

    assert outcomes == ["first", "turned away", "turned away", "turned away"]
    assert User.objects.get().is_superuser
