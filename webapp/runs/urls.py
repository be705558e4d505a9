from __future__ import annotations

from django.urls import path

from webapp.runs.views import exports, launch, models, runs

urlpatterns = [
    path("projects/<slug:slug>/runs/", runs.run_list, name="run_list"),
    path("projects/<slug:slug>/runs/compare/", runs.run_compare, name="run_compare"),
    path("projects/<slug:slug>/runs/metrics/", runs.run_metrics, name="run_metrics"),
    path("projects/<slug:slug>/runs/launch/<str:stage>/", launch.run_launch, name="run_launch"),
    path("projects/<slug:slug>/runs/launch/<str:stage>/advice/", launch.run_advice, name="run_advice"),
    path("projects/<slug:slug>/runs/launch/<str:stage>/rewards/", launch.run_rewards, name="run_rewards"),
    path("runs/<int:pk>/", runs.run_detail, name="run_detail"),
    path("runs/<int:pk>/status/", runs.run_status, name="run_status"),
    path("runs/<int:pk>/activity/", runs.run_activity, name="run_activity"),
    path("runs/<int:pk>/stop/", runs.run_stop, name="run_stop"),
    path("runs/<int:pk>/resume/", runs.run_resume, name="run_resume"),
    path("runs/<int:pk>/retry/", runs.run_retry, name="run_retry"),
    path("runs/<int:pk>/import/", runs.run_import, name="run_import"),
    path("runs/<int:pk>/outputs/<path:name>", runs.run_output, name="run_output"),
    path("projects/<slug:slug>/models/exports/", exports.export_list, name="export_list"),
    path("exports/<int:pk>/remove/", exports.export_remove, name="export_remove"),
    path("exports/<int:pk>/archive/", exports.export_archive, name="export_archive"),
    path("models/<int:pk>/", models.model_detail, name="model_detail"),
]
