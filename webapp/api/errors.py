"""Errors of the API as JSON: {"code", "message", "fields"?}, with the status of the family."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from webapp.errors import as_error, log_error


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Django REST framework's exception handler. Errors are JSON, also where the address gives something else."""
    request = context["request"]
    request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    if ours := as_error(error):
        set_rollback()
        log_error(request, error, ours)
        body: dict[str, Any] = {"code": ours.error_code, "message": ours.message}
        if field := ours.data.get("field"):
            body["fields"] = {field: [ours.message]}
        return Response(body, status=ours.status)
    if isinstance(error, ValidationError):
        error = exceptions.ValidationError(error.message_dict if hasattr(error, "error_dict") else error.messages)
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, exceptions.ValidationError):
        response.data = {"code": "bad_input", "message": error_sentence(error.detail), "fields": error.detail}
    elif isinstance(error, exceptions.APIException):
        response.data = {"code": error.default_code, "message": str(error.detail)}
    elif isinstance(error, Http404 | PermissionDenied):
        response.data = {"code": "not_found", "message": "It does not exist, or you don't have access to it."}
    return response


def error_sentence(detail: Any, field: str = "") -> str:
    """The first thing that is wrong, with the field's name."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        named = [item for item in (field, str(name)) if item and item != "non_field_errors"]
        return error_sentence(inner, ".".join(named))
    if isinstance(detail, list) and detail:
        return error_sentence(next((item for item in detail if item), detail[0]), field)
    return f"{field}: {detail}" if field else str(detail)
