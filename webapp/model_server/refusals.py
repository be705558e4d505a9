"""What an error of the network or of the model server means to people.

Whatever goes wrong comes as one of this site's errors, with the sentence that a person needs. Addresses and the
server's own words for a failure are for whoever runs it: they go into the log.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import httpx

from webapp.errors import BadInput, TooMany, TutelageError, Unavailable

log = logging.getLogger(__name__)

DOWN: Final = (
    "The model server does not answer. Try again in a minute; if it stays so, tell whoever runs this installation to "
    "start it, or to set MODEL_SERVER_URL to one that runs."
)
REJECTS_US: Final = (
    "The model server rejects MODEL_SERVER_TOKEN: tell whoever runs this installation to set it to the server's own."
)
CUT_OFF: Final = "The reply was cut off before its end. Try again."
FAILED: Final = (
    "The model server failed over this reply. Try again; if it stays so, tell whoever runs this installation: its log "
    "has the details."
)
UNAVAILABLE: Final = (
    "The model is not available right now. Try again in a minute. If this goes on, tell a manager of the project, who "
    "can see why under Models, Deployments."
)
REFUSED: Final = "The model cannot answer this message as it is. Change it, and try again."
FOR_PEOPLE: Final = frozenset({"prompt_too_long", "message_too_long", "busy", "cut_off", "unknown_model"})
TOO_LONG: Final = ("context", "too long", "longer than", "maximum model length")


class Fault(NamedTuple):
    """What an error response says, "" where it does not say it."""

    message: str
    param: str
    code: str


def read_fault(response: httpx.Response) -> Fault:
    """What is in an error response, whichever of the usual shapes it has."""
    try:
        body = response.json()
    except ValueError:
        return Fault(response.text.strip()[:300] or f"status {response.status_code}", "", "")
    for key in ("error", "detail", "message"):
        value = body.get(key) if isinstance(body, dict) else None
        if isinstance(value, dict):
            named = [value.get(name) for name in ("message", "param", "code")]
            texts = [text if isinstance(text, str) else "" for text in named]
            if texts[0]:
                return Fault(*texts)
        if isinstance(value, str) and value:
            return Fault(value, "", "")
    return Fault(f"status {response.status_code}", "", "")


def unreachable(url: str, error: Exception) -> Unavailable:
    """For an error of the network before there was an answer."""
    log.warning("the model server at %s does not answer: %r", url, error)
    return Unavailable(DOWN, code="model_server_unavailable", url=url, error=repr(error))


def refused_to_serve(path: str, response: httpx.Response, hidden: dict[str, str]) -> Unavailable:
    """For an error response to a request about models. hidden: what people must not read in the server's words, and
    what stands instead."""
    message = read_fault(response).message
    log.warning("the model server refused %s: %s", path, message)
    for text, instead in hidden.items():
        message = message.replace(text, instead)
    return Unavailable(f"The model server refused: {message}", code="model_server_refused", path=path)


def refusal(status: int, fault: Fault, model: str) -> TutelageError:
    """What the server's answer means to the person; `said`, `param` and `reason` of its data are the server's own."""
    data = {"said": fault.message, "param": fault.param, "reason": fault.code}
    if status == 404:
        return Unavailable(f"The model {model} is not ready yet. Try again in a moment.", code="unknown_model", **data)
    if status in {400, 413, 422}:
        if fault.code == "context_length_exceeded" or any(hint in fault.message.lower() for hint in TOO_LONG):
            return BadInput(
                "This conversation is longer than the model can read. Shorten your message, or start a new "
                "conversation.",
                code="prompt_too_long",
                **data,
            )
        return BadInput(f"The model server cannot take this: {fault.message}", code="refused", **data)
    if status in {401, 403}:
        log.error("the model server rejects MODEL_SERVER_TOKEN: %s", fault.message)
        return Unavailable(REJECTS_US, code="model_server_token", **data)
    if status == 429:
        return TooMany("The model server is busy. Try again in a moment.", code="busy", **data)
    log.error("the model server failed over a reply of %s: %s", model, fault.message)
    return Unavailable(FAILED, code="model_server_failed", status=status, **data)


def for_people(error: TutelageError) -> str:
    """The sentence for somebody who chats or asks by API. Paths, addresses and the server's words are for those who run
    it: they have them in the log and on the Deployments page."""
    if error.error_code in FOR_PEOPLE:
        return error.message
    return REFUSED if isinstance(error, BadInput) else UNAVAILABLE
