from __future__ import annotations

from django.urls import URLPattern, path

from webapp.home import views

urlpatterns: list[URLPattern] = [
    path("", views.home, name="home"),
    path("projects/<slug:slug>/loop/", views.project_loop, name="project_loop"),
]
