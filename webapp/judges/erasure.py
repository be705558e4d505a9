"""Judges repeat what they read, so what they said goes with the words that it was about."""

from __future__ import annotations

from annotations.models import Prompt
from webapp.judges.models import JudgeAnswer, JudgeJob


def forget_erased() -> int:
    """Delete answers and tries about prompts whose words were erased; how many answers."""
    deleted, _ = JudgeAnswer.objects.filter(prompt__erased_at__isnull=False).delete()
    tries = JudgeJob.objects.filter(kind=JudgeJob.Kind.TRY).exclude(data__prompt_id=None)
    about = dict(tries.values_list("pk", "data__prompt_id"))
    erased = set(Prompt.objects.filter(pk__in=about.values(), erased_at__isnull=False).values_list("pk", flat=True))
    JudgeJob.objects.filter(pk__in=[pk for pk, prompt in about.items() if prompt in erased]).delete()
    return deleted
