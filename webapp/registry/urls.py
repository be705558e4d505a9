from __future__ import annotations

from django.urls import path

from webapp.registry import views

urlpatterns = [
    path("projects/<slug:slug>/models/", views.model_list, name="model_list"),
    path("projects/<slug:slug>/deployments/", views.deployment_list, name="deployment_list"),
    path("models/<int:pk>/deploy/", views.model_deploy, name="model_deploy"),
    path("models/<int:pk>/archive/", views.model_archive, name="model_archive"),
    path("deployments/<int:pk>/roll-back/", views.deployment_roll_back, name="deployment_roll_back"),
    path("deployments/<int:pk>/retire/", views.deployment_retire, name="deployment_retire"),
]
