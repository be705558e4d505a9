from __future__ import annotations

from django.urls import path

from webapp.demo import views

urlpatterns = [
    path("demo/start/", views.demo_start, name="demo_start"),
    path("small-model/", views.small_model, name="small_model"),
    path("projects/<slug:slug>/report/", views.demo_report, name="demo_report"),
    path("projects/<slug:slug>/report/again/", views.demo_again, name="demo_again"),
    path("projects/<slug:slug>/report/people/", views.demo_logins, name="demo_logins"),
]
