from __future__ import annotations

from django.urls import path

from webapp.judges import cost_views, reward_view, views

urlpatterns = [
    path("projects/<slug:slug>/judges/", views.judge_list, name="judge_list"),
    path("projects/<slug:slug>/judges/add/", views.judge_add, name="judge_add"),
    path("judges/<int:pk>/", views.judge_detail, name="judge_detail"),
    path("judges/<int:pk>/edit/", views.judge_edit, name="judge_edit"),
    path("judges/<int:pk>/try/", views.judge_try, name="judge_try"),
    path("judges/<int:pk>/compare/", views.judge_compare, name="judge_compare"),
    path("judges/<int:pk>/agreement/", views.judge_agreement, name="judge_agreement"),
    path("judges/<int:pk>/archive/", views.judge_archive, name="judge_archive"),
    path("judges/<int:pk>/new-address/", views.judge_new_address, name="judge_new_address"),
    path("judges/reward/<str:secret>/", reward_view.judge_reward, name="judge_reward"),
    path("projects/<slug:slug>/judges/cost/<str:stage>/", cost_views.judge_cost, name="judge_cost"),
    path("runs/<int:pk>/judges/", cost_views.run_judges, name="run_judges"),
    path("judge-jobs/<int:pk>/", views.judge_job, name="judge_job"),
    path("judge-jobs/<int:pk>/status/", views.judge_job_status, name="judge_job_status"),
    path("judge-jobs/<int:pk>/stop/", views.judge_job_stop, name="judge_job_stop"),
    path("judge-jobs/<int:pk>/continue/", views.judge_job_continue, name="judge_job_continue"),
]
