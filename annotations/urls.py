from __future__ import annotations

from django.urls import URLPattern, path

from annotations import history_views, views

urlpatterns: list[URLPattern] = [
    path("label/", views.label, name="label"),
    path("label/history/", history_views.label_history, name="label_history"),
    path("label/kinds/", views.label_kinds, name="label_kinds"),
    path("label/preview/", views.label_preview, name="label_preview"),
    path("label/leases/<int:lease_id>/", views.label_lease, name="label_lease"),
    path("label/leases/<int:lease_id>/submit/", views.label_submit, name="label_submit"),
    path("label/leases/<int:lease_id>/skip/", views.label_skip, name="label_skip"),
    path("label/leases/<int:lease_id>/unskip/", views.label_unskip, name="label_unskip"),
    path("label/leases/<int:lease_id>/guidelines/", views.label_guidelines, name="label_guidelines"),
    path("label/leases/<int:lease_id>/draft/", views.label_draft, name="label_draft"),
    path("label/leases/<int:lease_id>/renew/", views.label_renew, name="label_renew"),
    path("label/<str:kind>/<int:label_id>/undo/", views.label_undo, name="label_undo"),
]
