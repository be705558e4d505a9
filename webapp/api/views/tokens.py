"""A person's own tokens: those of the API, made on the profile page, where the password is asked for; and that of the
Hugging Face hub."""

from __future__ import annotations

from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts import hub, tokens
from webapp.accounts.authentication import check_scope
from webapp.accounts.models import ApiToken, HubToken
from webapp.api.base import Endpoint
from webapp.api.serializers import HubTokenState, NewHubToken, TokenSerializer


class Tokens(Endpoint):
    needs = {"GET": "signed_in"}

    @extend_schema(responses=TokenSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Your tokens that still work, newest first."""
        rows = tokens.tokens_of(self.person)
        return Response(TokenSerializer(rows, many=True, context={"request": request}).data)


class TokenDetail(Endpoint):
    needs = {"DELETE": "signed_in"}

    @extend_schema(responses={204: None})
    def delete(self, request: Request, digest: str) -> Response:
        """End a token of yours. A token may always end itself; ending another takes the manage scope."""
        token = request.auth
        if not isinstance(token, ApiToken) or token.digest != digest:
            check_scope(token, "manage")
        tokens.revoke_api_token(user=self.person, digest=digest)
        return Response(status=204)


@method_decorator(sensitive_post_parameters("token"), name="dispatch")
class HubTokenDetail(Endpoint):
    """The caller's own; its text is never read back. A token of the API needs the manage scope to change it."""

    needs = {"GET": "signed_in", "PUT": "signed_in", "DELETE": "signed_in"}

    @extend_schema(responses=HubTokenState)
    def get(self, request: Request) -> Response:
        """Whether you have a token of the Hugging Face hub here."""
        return Response({"stored": HubToken.objects.filter(user=self.person).exists(), "known": None})

    @extend_schema(request=NewHubToken, responses=HubTokenState)
    @method_decorator(sensitive_variables())
    def put(self, request: Request) -> Response:
        """Store your token of the Hugging Face hub, encrypted, in place of an earlier one. `known` is whether the hub
        knows it; null if the hub could not be asked."""
        check_scope(request.auth, "manage")
        recognized = hub.set_hub_token(user=self.person, **self.body(NewHubToken))
        return Response({"stored": True, "known": recognized or None})

    @extend_schema(responses={204: None})
    def delete(self, request: Request) -> Response:
        """Delete it."""
        check_scope(request.auth, "manage")
        hub.remove_hub_token(user=self.person)
        return Response(status=204)
