from __future__ import annotations

import pytest
from knox.models import AuthToken
from rest_framework.test import APIClient

from webapp.accounts.models import User


@pytest.fixture
def client_of(db):
    """An API client that carries a person's token."""

    def make(person: User) -> APIClient:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {AuthToken.objects.create(person)[1]}")
        return client

    return make
