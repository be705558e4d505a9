"""The Celery application. A message is only a wake-up call: every fact it acts on is read from the database."""

import os

from celery import Celery, signals

from webapp.home_folder import keep_private
from webapp.supervisor.ready import announce_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
keep_private()
app = Celery("tutelage")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def keep_our_logging(**_: object) -> None:
    """Celery sets up no logging of its own where this is connected: the settings' LOGGING holds."""


signals.worker_ready.connect(announce_ready)
signals.beat_init.connect(announce_ready)
