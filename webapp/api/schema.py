"""The API's schema: what every endpoint answers when it says no, and which scope a token needs for it."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

from webapp.accounts.access import SCOPES

READ: Final = ("400", "401", "403", "404")
WRITTEN: Final = (*READ, "409", "413", "415", "503")
DELETED: Final = (*READ, "409", "503")
STATUSES: Final = {"POST": WRITTEN, "PUT": WRITTEN, "PATCH": WRITTEN, "DELETE": DELETED}
SAYS_NO: Final = {
    "400": "Something in the address or the body is wrong; `message` and `fields` say what.",
    "401": "There is no API token, or it does not work anymore.",
    "403": "Your role, or the token's scopes, do not include this.",
    "404": "It does not exist, or you don't have access to it.",
    "409": "The thing is not in a state in which this can be done to it.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "503": "A server that this needs does not answer.",
}


class Error(serializers.Serializer[Any]):
    """`code` is for programs, `message` for people; `fields` holds what is wrong with each field, where one is."""

    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(required=False)  # type: ignore[assignment]  # the API's word, not the framework's


class Schema(AutoSchema):
    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for status in STATUSES.get(self.method, READ):
            says = OpenApiResponse(Error, SAYS_NO[status])
            bodies.setdefault(status, self._get_response_for_code(says, status, media_types=["application/json"]))
        return bodies

    def get_description(self) -> str:  # type: ignore[override]  # as the library's own is
        needs: dict[str, str] = getattr(self.view, "needs", {})
        scope = SCOPES.get(needs.get(self.method, ""), "")
        return "\n\n".join(filter(None, [super().get_description(), scope and f"Scope of the token: `{scope}`."]))


class ApiTokenScheme(OpenApiAuthenticationExtension):
    target_class = "webapp.accounts.authentication.ApiTokenAuthentication"
    name = "apiToken"

    def get_security_definition(self, auto_schema: Any) -> Any:  # noqa: ARG002 (the library's signature)
        return build_bearer_security_scheme_object(header_name="Authorization", token_prefix="Bearer")  # noqa: S106
