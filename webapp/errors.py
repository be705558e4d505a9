"""The family of errors: a message for the person, a code for programs, data for the log; mapped to HTTP once, here."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

log = logging.getLogger(__name__)


class TutelageError(Exception):
    """`message` is a whole sentence that says what is wrong and how to mend it."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.data = data


class BadInput(TutelageError):
    code = "bad_input"


class NotAllowed(TutelageError):
    status = 403
    code = "not_allowed"


class NotFound(TutelageError):
    status = 404
    code = "not_found"


class Conflict(TutelageError):
    """The thing is not in a state in which this can be done to it."""

    status = 409
    code = "conflict"


class TooMany(TutelageError):
    status = 429
    code = "too_many"


class Unavailable(TutelageError):
    """A server this needs (model server, broker, store) does not answer."""

    status = 503
    code = "unavailable"


def wants_json(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/v1/")) or request.headers.get("Accept", "").startswith(
        "application/json"
    )


def answer(request: HttpRequest, error: TutelageError, template: str = "errors/page.html") -> HttpResponse:
    """The error as JSON, as an htmx message or as a page."""
    if wants_json(request):
        return JsonResponse({"code": error.error_code, "message": error.message}, status=error.status)
    if getattr(request, "htmx", False):
        template = "errors/fragment.html"
    return render(request, template, {"error": error}, status=error.status)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """What a form gets whose page is older than the session, or that another site sent."""
    log.info("CSRF check failed: %s", reason)
    message = (
        "You have signed in or out since it was opened, or the browser keeps no cookies. Go back, reload the page and "
        "send it again; what you typed is still there."
    )
    return answer(request, NotAllowed(message, code="csrf_failed"), "403_csrf.html")


class ErrorMiddleware:
    """Turns a TutelageError into a page, an htmx message or JSON."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, TutelageError):
            return None
        log.info("%s %s: %s %s", request.method, request.path, exception.error_code, exception.data)
        return answer(request, exception)
