"""The ASGI entry that a web server such as uvicorn loads."""

import os

from django.core.asgi import get_asgi_application
from django.urls import get_resolver

from webapp.home_folder import keep_private
from webapp.supervisor.ready import announce_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
keep_private()
django_application = get_asgi_application()
len(get_resolver().url_patterns)  # loads every view now, not at the first request
from webapp.bodies import BodyLimit  # noqa: E402 (it needs the settings and the apps)

application = BodyLimit(django_application)
announce_ready()
