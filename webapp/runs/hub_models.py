"""What the Hugging Face hub says of a model before anything of it is fetched: the sizes of its files, its parameters,
and whether this person may have them."""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import httpx
from django.core.cache import cache
from django.views.decorators.debug import sensitive_variables
from pydantic import BaseModel, Field, ValidationError

from training.contract import WEIGHTS, InputError, hub_place, is_gguf, wanted_files
from webapp.accounts.hub import hub_token
from webapp.accounts.models import User
from webapp.errors import BadInput, Unavailable

log = logging.getLogger(__name__)
SECONDS: Final = 5.0  # that the hub has to answer
KEPT_SECONDS: Final = 120  # that its answer is kept, while the form is filled in
NOT_FOUND: Final = "the hub has no such model, or keeps it private. Look at its name, capital letters included"


class HubModel(BaseModel):
    """Bytes of what would be fetched, and of the weights in it. parameters: 0 if the hub does not say."""

    bytes: int = 0
    weights: int = 0
    parameters: int = 0
    file: str = Field("", description="the GGUF file, where it is one")


class Sibling(BaseModel):
    rfilename: str
    size: int | None = None


class Counted(BaseModel):
    total: int = 0


class Answer(BaseModel):
    """The hub's answer about a repository, as far as it is read."""

    siblings: list[Sibling] = []
    safetensors: Counted | None = None
    gguf: Counted | None = None
    gated: bool | str = False


@sensitive_variables()
def ask_hub(name: str, revision: str, person: User) -> HubModel:
    """Raises BadInput for a name or revision that the hub does not know, files that this person may not have, or a
    repository without a model; Unavailable if the hub cannot be reached."""
    token = hub_token(person)
    key = "hub-model:" + sha256(f"{hub_address()} {name} {revision} {person.pk} {token}".encode()).hexdigest()
    if cached := cache.get(key):
        return HubModel.model_validate(cached)
    repository = read_repository(name, revision, token)
    cache.set(key, repository.model_dump(), KEPT_SECONDS)
    return repository


def hub_address() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@sensitive_variables()
def read_repository(name: str, revision: str, token: str) -> HubModel:
    repository, file = hub_place(name) or (name, "")
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    response = call_hub("GET", f"/api/models/{repository}{at}?blobs=true", name, token)
    refuse_status(response, name, revision, token)
    try:
        answer = Answer.model_validate(response.json())
    except (ValidationError, ValueError) as error:
        raise Unavailable(f"base_name: {name}: the hub's answer cannot be read. Try again later.") from error
    sizes = {sibling.rfilename: max(0, sibling.size or 0) for sibling in answer.siblings}
    try:
        needed_files = wanted_files(name, file, list(sizes))
    except InputError as error:
        raise BadInput(f"base_name: {error.message}.", field="base_name") from error
    gguf = next((path for path in needed_files if is_gguf(path)), "")
    if answer.gated:
        url_path = f"/{repository}/resolve/{quote(revision or 'main', safe='')}/{quote(needed_files[0])}"
        refuse_status(call_hub("HEAD", url_path, name, token), name, revision, token)
    counted = answer.gguf if gguf else answer.safetensors
    return HubModel(
        bytes=sum(sizes[path] for path in needed_files),
        weights=sum(sizes[path] for path in needed_files if path == gguf or path.endswith(WEIGHTS)),
        parameters=max(0, counted.total) if counted else 0,
        file=gguf,
    )


@sensitive_variables()
def call_hub(method: str, place: str, name: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return httpx.request(method, hub_address() + place, headers=headers, timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.info("the hub could not be asked about a model: %s", type(error).__name__)
        raise Unavailable(
            f"base_name: {name}: this server cannot reach the Hugging Face hub, so its size is not known. The training "
            "worker asks again when it starts; without a network, take a folder or send a file."
        ) from error


@sensitive_variables()
def refuse_status(response: httpx.Response, name: str, revision: str, token: str) -> None:
    """Raises what the hub's refusal means for the person."""
    code: Any = response.headers.get("X-Error-Code", "")
    if response.status_code < 400:
        return
    if code == "GatedRepo" or response.status_code == 403:
        have = "Your token has no access: accept its license on the hub with the account of the token"
        lack = "Accept its license on the hub, and store a token of yours on your profile page"
        raise BadInput(
            f"base_name: {name}: its authors give it only to people who accepted its license. "
            f"{have if token else lack}.",
            field="base_name",
            code="gated",
        )
    if code == "RevisionNotFound":
        raise BadInput(
            f"revision: {name} has no branch, tag or commit {revision}. Leave it empty for the newest.",
            field="revision",
        )
    if response.status_code in (401, 404):
        raise BadInput(f"base_name: {name}: {NOT_FOUND}.", field="base_name")
    raise Unavailable(
        f"base_name: {name}: the hub does not answer as it should (status {response.status_code}). Try again later."
    )
