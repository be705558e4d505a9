from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection
from django.test import Client

from tests import factories
from webapp.accounts import services
from webapp.accounts.models import Invitation, Membership, Role, User
from webapp.errors import Conflict, NotAllowed

SIGN_UP = {"name": "Nia", "email": "nia@example.org", "password1": factories.PASSWORD}


@pytest.fixture
def secret(project, ada):
    return services.invite(project=project, role=Role.ANNOTATOR, by=ada)[1]


def test_the_database_holds_only_the_hash_of_a_links_secret(project, ada):
    invitation, secret = services.invite(project=project, role=Role.TESTER, by=ada)

    assert len(secret) >= 40
    assert secret not in str(Invitation.objects.filter(pk=invitation.pk).values())


def test_accepting_makes_a_member_once(project, ada, stranger):
    invitation, _ = services.invite(project=project, role=Role.TESTER, by=ada)
    services.accept_invitation(user=stranger, invitation=invitation)
    services.accept_invitation(user=stranger, invitation=invitation)

    assert Membership.objects.get(project=project, user=stranger).role == Role.TESTER


def test_a_link_works_for_one_person(project, ada, stranger):
    invitation, _ = services.invite(project=project, role=Role.TESTER, by=ada)
    services.accept_invitation(user=stranger, invitation=invitation)

    with pytest.raises(Conflict, match="already been taken up"):
        services.accept_invitation(user=factories.person("Zoe"), invitation=invitation)


def test_a_withdrawn_or_expired_link_does_not_work(project, ada, stranger):
    withdrawn, _ = services.invite(project=project, role=Role.TESTER, by=ada)
    services.revoke_invitation(project=project, invitation_id=withdrawn.pk)
    expired, _ = services.invite(project=project, role=Role.TESTER, by=ada, lifetime=timedelta(seconds=-1))

    with pytest.raises(Conflict, match="withdrawn"):
        services.accept_invitation(user=stranger, invitation=withdrawn)
    with pytest.raises(Conflict, match="expired"):
        services.accept_invitation(user=stranger, invitation=expired)


def test_a_link_for_one_address_is_for_that_person_only(project, ada, stranger):
    invitation, _ = services.invite(project=project, role=Role.TESTER, by=ada, email="Zoe@Example.org")

    with pytest.raises(NotAllowed, match=r"zoe@example\.org"):
        services.accept_invitation(user=stranger, invitation=invitation)
    services.accept_invitation(user=factories.person("Zoe"), invitation=invitation)


def test_a_members_role_is_not_lowered_by_a_link(project, ada, mo):
    invitation, _ = services.invite(project=project, role=Role.TESTER, by=ada)

    assert services.accept_invitation(user=mo, invitation=invitation).role == Role.MANAGER
    invitation.refresh_from_db()
    assert invitation.is_open


def test_the_first_to_sign_up_runs_the_installation(client, db):
    client.post("/accounts/signup/", SIGN_UP)

    first = User.objects.get()
    assert (first.is_superuser, first.name) == (True, "Nia")


def test_after_the_first_nobody_signs_up_without_a_link(client, root):
    client.post("/accounts/signup/", SIGN_UP)

    assert b"by invitation" in client.get("/accounts/signup/").content
    assert User.objects.count() == 1


def test_the_loser_of_the_race_to_be_first_is_turned_away(root):
    late = User(email="late@example.org")

    with pytest.raises(NotAllowed, match="invitation link"):
        services.settle_new_person(user=late, invitation=None)
    assert User.objects.count() == 1


def test_a_link_leads_through_sign_up_into_the_project(root, project, secret):
    browser = Client()
    assert b"Join Kite" in browser.get(f"/invitations/{secret}/").content

    browser.post("/accounts/signup/", SIGN_UP)

    nia = User.objects.get(email="nia@example.org")
    assert not nia.is_superuser
    assert Membership.objects.get(project=project, user=nia).role == Role.ANNOTATOR
    assert browser.get("/projects/kite/").status_code == 200


def test_sign_up_by_a_bound_link_takes_only_its_address(client, root, project, ada):
    _, secret = services.invite(project=project, role=Role.TESTER, by=ada, email="zoe@example.org")
    client.get(f"/invitations/{secret}/")

    page = client.post("/accounts/signup/", SIGN_UP)

    assert b"This invitation is for zoe@example.org." in page.content


def test_somebody_with_an_account_joins_with_one_click(client, project, secret, stranger):
    client.force_login(stranger)
    client.post(f"/invitations/{secret}/accept/")

    assert project.memberships.filter(user=stranger).exists()
    assert b"already been taken up" in client.get(f"/invitations/{secret}/").content


def test_an_unknown_link_says_so(client, root):
    page = client.get("/invitations/nonsense/")

    assert page.status_code == 404
    assert b"Ask whoever sent it" in page.content


def test_the_page_of_members_makes_shows_and_withdraws_a_link(client, project, mo):
    client.force_login(mo)
    page = client.post("/projects/kite/invitations/", {"role": "tester", "email": ""})
    link = page.context["link"]

    assert link.encode() in page.content
    assert link.encode() not in client.get("/projects/kite/members/").content
    client.post(f"/projects/kite/invitations/{Invitation.objects.get().pk}/revoke/")
    assert b"withdrawn" in client.get(link).content


def test_roles_are_set_and_members_removed_in_the_browser(client, project, mo, ann):
    client.force_login(mo)
    client.post(f"/projects/kite/members/{ann.pk}/role/", {"role": "tester"})
    assert project.memberships.get(user=ann).role == Role.TESTER

    client.post(f"/projects/kite/members/{ann.pk}/remove/")
    assert not project.memberships.filter(user=ann).exists()
    client.post("/projects/kite/leave/")
    assert not project.memberships.filter(user=mo).exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_who_sign_up_at_once_exactly_one_runs_the_installation():
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
