"""A person's own API tokens. They are made on the profile page, where the password is asked for."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts import tokens
from webapp.accounts.authentication import check_scope
from webapp.accounts.models import ApiToken
from webapp.api.base import Endpoint
from webapp.api.serializers import TokenSerializer


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
