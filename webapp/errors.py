"""The family of errors: a message for the person, a code for programs, data for the log; mapped to HTTP once, here."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import Any, ClassVar, Final

import kombu.exceptions
import psycopg
import redis
from django.conf import settings
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from training import contract
from webapp.middleware import HybridMiddleware
from webapp.partials import wants_fragment

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


class TooLarge(TutelageError):
    status = 413
    code = "too_large"


class TooMany(TutelageError):
    status = 429
    code = "too_many"


class Unavailable(TutelageError):
    """A server this needs (model server, broker, store) does not answer."""

    status = 503
    code = "unavailable"


class DiskFull(TutelageError):
    status = 507
    code = "disk_full"


# ------------------------------------------------------------------- errors of bad requests, full disks, lost servers

NOT_STORABLE: Final = (
    "This request holds something that cannot be stored: a NUL, half a character or too large a number."
)
DISK_IS_FULL: Final = "The server's disk is full. What you typed is kept in your browser; tell the administrator."
NO_DATABASE: Final = "The database does not answer. What you typed is kept in your browser; try again in a moment."
NO_BROKER: Final = "The message broker (Redis) does not answer. What you typed is kept in your browser; try again soon."
# SQLSTATE of a server that is away, shutting down or out of something. None: it was not reached at all.
SERVER_IS_AWAY: Final = ("08", "53", "57P")
OUTAGES: Final = ("disk_full", "database_unavailable", "broker_unavailable")
ALMOST_NOTHING: Final = 1 << 20  # bytes; a database that cannot write goes down with less than this


def as_error(exception: BaseException) -> TutelageError | None:
    """The error of the family that an exception stands for; None for one that is our own fault.

    These are what hostile or broken input raises far below the view that took it. The log keeps where.
    """
    if isinstance(exception, TutelageError):
        return exception
    if isinstance(exception, RequestDataTooBig):
        return TooLarge("The request is too large. Send less at once.")
    if isinstance(exception, TooManyFieldsSent | TooManyFilesSent):
        return BadInput("The request has too many fields.")
    if isinstance(exception, MultiPartParserError | UnreadablePostError):
        return BadInput("The request was cut off. Send it again.")
    if isinstance(exception, RecursionError):
        return BadInput("The request is nested too deeply.")
    if isinstance(exception, DataError | UnicodeEncodeError) or is_too_many_digits(exception):
        return BadInput(NOT_STORABLE)
    return as_outage(exception)


def as_outage(exception: BaseException) -> TutelageError | None:
    """The error for a full disk, or a database or broker that is away, wherever it was met."""
    if is_disk_full(exception):
        return DiskFull(DISK_IS_FULL)
    if isinstance(exception, OperationalError | InterfaceError) and is_away(exception):
        return DiskFull(DISK_IS_FULL) if no_space_is_left() else Unavailable(NO_DATABASE, code="database_unavailable")
    if isinstance(exception, redis.ConnectionError | redis.TimeoutError | kombu.exceptions.OperationalError):
        return Unavailable(NO_BROKER, code="broker_unavailable")
    return None


def is_disk_full(exception: BaseException | None) -> bool:
    """Whether it says so itself, or what caused it does."""
    while exception is not None:
        if isinstance(exception, OSError) and exception.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(exception, psycopg.errors.DiskFull):
            return True
        exception = exception.__cause__
    return False


def is_away(exception: OperationalError | InterfaceError) -> bool:
    state = getattr(exception.__cause__, "sqlstate", None)
    return state is None or state.startswith(SERVER_IS_AWAY)


def no_space_is_left() -> bool:
    """Whether that is why the database is away: it goes down when it cannot write its log."""
    try:
        filesystem = os.statvfs(settings.HOME)
    except OSError:
        return False
    return filesystem.f_bavail * filesystem.f_frsize < ALMOST_NOTHING


def is_too_many_digits(exception: BaseException) -> bool:
    """Whether Python refused to read an integer of more than 4,300 digits."""
    return isinstance(exception, ValueError) and "integer string conversion" in str(exception)


# ---------------------------------------------------------------------------------------------------------- answers


def wants_json(request: HttpRequest) -> bool:
    return is_api(request) or request.headers.get("Accept", "").startswith("application/json")


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/v1/"))


def error_body(request: HttpRequest, status: int, code: str, message: str) -> dict[str, Any]:
    """The API's body of an error; OpenAI's under /v1/."""
    if request.path.startswith("/v1/"):
        return contract.openai_error_body(message, status=status, code="request_too_large" if status == 413 else code)
    return {"code": code, "message": message}


def json_error(request: HttpRequest, *, status: int, code: str, message: str) -> JsonResponse:
    return JsonResponse(error_body(request, status, code, message), status=status)


def error_response(request: HttpRequest, error: TutelageError, template: str = "errors/page.html") -> HttpResponse:
    """The error as JSON, as an htmx message or as a page."""
    if wants_json(request):
        return json_error(request, status=error.status, code=error.error_code, message=error.message)
    if wants_fragment(request):
        template = "errors/fragment.html"
    elif error.status >= 500 and error.error_code in OUTAGES:
        # A page of the site asks the database who is looking at it.
        return HttpResponse(render_to_string("errors/outage.html", {"error": error}), status=error.status)
    return render(request, template, {"error": error}, status=error.status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if wants_json(request):
        return json_error(request, status=400, code="bad_input", message="This request cannot be understood.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if wants_json(request):
        return json_error(request, status=403, code="not_allowed", message="You may not do this.")
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if wants_json(request):
        message = "It does not exist, or you don't have access to it."
        return json_error(request, status=404, code="not_found", message=message)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """For what is raised outside views, too, as by a session that cannot be saved: Django is handling that just now."""
    if (exception := sys.exc_info()[1]) is not None and (error := as_outage(exception)) is not None:
        return error_response(request, error)
    if wants_json(request):
        message = "Something broke here. The details are in the log of the site."
        return json_error(request, status=500, code="server_error", message=message)
    return defaults.server_error(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """What a form gets whose page is older than the session, or that another site sent."""
    log.info("CSRF check failed: %s", reason)
    message = (
        "You have signed in or out since it was opened, or the browser keeps no cookies. Go back, reload the page and "
        "send it again; what you typed is still there."
    )
    return error_response(request, NotAllowed(message, code="csrf_failed"), "403_csrf.html")


class ErrorMiddleware(HybridMiddleware):
    """Turns a TutelageError, and what stands for one, into a page, an htmx message or JSON."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        error = as_error(exception)
        if error is None:
            return None
        log_error(request, exception, error)
        return error_response(request, error)


def log_error(request: HttpRequest, exception: BaseException, error: TutelageError) -> None:
    """With its trace where it is not a refusal of ours: it may be a fault of ours after all."""
    trace = None if exception is error else exception
    level = logging.WARNING if error.error_code in OUTAGES else logging.INFO
    log.log(level, "%s %s: %s %s", request.method, request.path, error.error_code, error.data, exc_info=trace)
