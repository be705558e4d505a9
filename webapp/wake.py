"""Messages to workers. What is to be done stands in the database, so one that is lost is sent again by a reconciler."""

from __future__ import annotations

import logging
from typing import Any

from kombu.exceptions import OperationalError

from webapp.celery import app

log = logging.getLogger(__name__)


def send_task(name: str, *args: Any, **options: Any) -> bool:
    """Tell a worker. False, with a line in the log, where the broker does not answer: a page must not fail for it."""
    try:
        app.send_task(name, args=args, retry=False, **options)
    except OperationalError as error:
        log.warning("%s%s: no message to the workers, the reconciler will send it: %s", name, args, error)
        return False
    return True
