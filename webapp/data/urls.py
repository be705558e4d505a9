from __future__ import annotations

from django.urls import path

from webapp.data import import_views, views
from webapp.data import prompt_views as prompts

urlpatterns = [
    path("projects/<slug:slug>/data/", views.overview, name="data"),
    path("projects/<slug:slug>/data/prompts/", views.prompt_list, name="data_prompts"),
    path("projects/<slug:slug>/data/prompts/add/", prompts.prompt_add, name="data_prompt_add"),
    path("projects/<slug:slug>/data/prompts/<int:pk>/", prompts.prompt_detail, name="data_prompt"),
    path(
        "projects/<slug:slug>/data/prompts/<int:pk>/answer/",
        prompts.prompt_check,
        name="data_prompt_check",
    ),
    path(
        "projects/<slug:slug>/data/prompts/<int:pk>/withdraw/",
        prompts.prompt_withdraw,
        name="data_prompt_withdraw",
    ),
    path("projects/<slug:slug>/data/prompts/<int:pk>/restore/", prompts.prompt_restore, name="data_prompt_restore"),
    path("projects/<slug:slug>/data/prompts/<int:pk>/ask/", prompts.prompt_ask, name="data_prompt_ask"),
    path("projects/<slug:slug>/data/prompts/ask/", prompts.prompts_ask, name="data_prompts_ask"),
    path("projects/<slug:slug>/data/demonstrations/", views.demonstration_list, name="data_demonstrations"),
    path("projects/<slug:slug>/data/rankings/", views.ranking_list, name="data_rankings"),
    path("projects/<slug:slug>/data/judgments/", views.judgment_list, name="data_judgments"),
    path("projects/<slug:slug>/data/tasks/", views.task_list, name="data_tasks"),
    path("projects/<slug:slug>/data/<str:kind>/<int:pk>/withdraw/", views.label_withdraw, name="data_label_withdraw"),
    path("projects/<slug:slug>/data/corpora/<int:pk>/", views.corpus_detail, name="data_corpus"),
    path("projects/<slug:slug>/data/import/", import_views.import_new, name="data_import_new"),
    path("projects/<slug:slug>/data/imports/<int:pk>/", import_views.import_detail, name="data_import"),
    path(
        "projects/<slug:slug>/data/imports/<int:pk>/confirm/", import_views.import_confirm, name="data_import_confirm"
    ),
    path("projects/<slug:slug>/data/imports/<int:pk>/check/", import_views.import_check, name="data_import_check"),
    path("projects/<slug:slug>/data/imports/<int:pk>/cancel/", import_views.import_cancel, name="data_import_cancel"),
    path("projects/<slug:slug>/data/export/", views.export_page, name="data_export_page"),
    path("projects/<slug:slug>/data/export/<str:kind>.jsonl", views.export_rows, name="data_export"),
]
