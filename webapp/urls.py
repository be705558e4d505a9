"""Every address of the site."""

from __future__ import annotations

from django.urls import include, path

handler400 = "webapp.errors.bad_request"
handler403 = "webapp.errors.permission_denied"
handler404 = "webapp.errors.page_not_found"
handler500 = "webapp.errors.server_error"
urlpatterns = [
    path("", include("webapp.accounts.urls")),  # before allauth: a page of an account may take the place of its own
    path("accounts/", include("allauth.urls")),
    path("", include("webapp.home.urls")),
    path("", include("annotations.urls")),
    path("", include("webapp.registry.urls")),
    path("", include("webapp.datasets.urls")),
    path("", include("webapp.runs.urls")),
    path("", include("webapp.judges.urls")),
    path("", include("webapp.comparisons.urls")),
    path("", include("webapp.data.urls")),
    path("", include("webapp.chat.urls")),
    path("", include("webapp.api.urls")),
    path("", include("webapp.demo.urls")),
]
