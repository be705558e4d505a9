from __future__ import annotations

from django.urls import path

from webapp.comparisons import views

urlpatterns = [
    path("projects/<slug:slug>/comparisons/", views.comparison_list, name="comparison_list"),
    path("models/<int:pk>/compare/", views.model_compare, name="model_compare"),
    path("runs/<int:pk>/compare-blind/", views.run_compare_blind, name="run_compare_blind"),
    path("comparisons/<int:pk>/", views.comparison_detail, name="comparison_detail"),
    path("comparisons/<int:pk>/status/", views.comparison_status, name="comparison_status"),
    path("comparisons/<int:pk>/stop/", views.comparison_stop, name="comparison_stop"),
    path("comparisons/<int:pk>/continue/", views.comparison_continue, name="comparison_continue"),
    path("comparisons/<int:pk>/download/", views.comparison_download, name="comparison_download"),
]
