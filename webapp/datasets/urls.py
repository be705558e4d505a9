from __future__ import annotations

from django.urls import path

from webapp.datasets import views

urlpatterns = [
    path("projects/<slug:slug>/data/snapshots/", views.snapshot_list, name="snapshot_list"),
    path("projects/<slug:slug>/data/snapshots/new/", views.snapshot_create, name="snapshot_create"),
    path("snapshots/<int:pk>/", views.snapshot_detail, name="snapshot_detail"),
]
