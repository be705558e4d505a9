from __future__ import annotations

from django.urls import URLPattern, path

from webapp.accounts import members, people, profile, views

urlpatterns: list[URLPattern] = [
    path("projects/", views.project_list, name="project_list"),
    path("projects/new/", views.project_new, name="project_new"),
    path("projects/<slug:slug>/", views.project_detail, name="project_detail"),
    path("projects/<slug:slug>/settings/", views.project_settings, name="project_settings"),
    path("projects/<slug:slug>/archive/", views.project_archive, name="project_archive"),
    path("projects/<slug:slug>/restore/", views.project_restore, name="project_restore"),
    path("projects/<slug:slug>/guidelines/", views.guidelines, name="guidelines"),
    path("projects/<slug:slug>/guidelines/edit/", views.guidelines_edit, name="guidelines_edit"),
    path("projects/<slug:slug>/guidelines/preview/", views.guidelines_preview, name="guidelines_preview"),
    path("projects/<slug:slug>/members/", members.member_list, name="member_list"),
    path("projects/<slug:slug>/members/<int:user_id>/role/", members.member_role, name="member_role"),
    path("projects/<slug:slug>/members/<int:user_id>/remove/", members.member_remove, name="member_remove"),
    path("projects/<slug:slug>/leave/", members.member_leave, name="member_leave"),
    path("projects/<slug:slug>/invitations/", members.invitation_new, name="invitation_new"),
    path(
        "projects/<slug:slug>/invitations/<int:invitation_id>/revoke/",
        members.invitation_revoke,
        name="invitation_revoke",
    ),
    path("invitations/<str:secret>/", members.invitation, name="invitation"),
    path("invitations/<str:secret>/accept/", members.invitation_accept, name="invitation_accept"),
    path("accounts/email/", profile.EmailAddresses.as_view(), name="account_email"),
    path("signed-in/", profile.signed_in_again, name="signed_in_again"),
    path("people/", people.list_people, name="people"),
    path("people/<int:user_id>/password/", people.person_password_link, name="person_password_link"),
    path("profile/", profile.profile, name="profile"),
    path("profile/hub-token/", profile.hub_token, name="hub_token"),
    path("profile/hub-token/remove/", profile.hub_token_remove, name="hub_token_remove"),
    path("profile/tokens/", profile.token_new, name="token_new"),
    path("profile/tokens/<str:digest>/revoke/", profile.token_revoke, name="token_revoke"),
]
