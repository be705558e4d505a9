from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from webapp.accounts.models import ApiToken, User
from webapp.accounts.tokens import create_api_token


@pytest.fixture
def client_of(db: None) -> Any:
    """An API client that carries a token of a person's, for everything unless `scopes` names less."""

    def make(person: User, *scopes: str) -> APIClient:
        client = APIClient()
        _, secret = create_api_token(user=person, name="Test", scopes=scopes or ApiToken.Scope.values)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return client

    return make
