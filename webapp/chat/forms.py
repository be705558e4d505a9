from __future__ import annotations

import uuid

from django import forms

from webapp.chat.models import Feedback
from webapp.chat.services.conversations import LONGEST
from webapp.chat.services.feedback import BAD_REASONS, GOOD_REASONS


class TextForm(forms.Form):
    """A message, with the token that makes it count once. Blank text is the service's to refuse."""

    text = forms.CharField(required=False, strip=False)
    token = forms.UUIDField(initial=uuid.uuid4)


class ActionForm(forms.Form):
    token = forms.UUIDField()


class ThumbForm(forms.Form):
    thumb = forms.TypedChoiceField(coerce=int, choices=[(1, "Good"), (0, "None"), (-1, "Bad")])


class FeedbackForm(forms.Form):
    reasons = forms.MultipleChoiceField(required=False, choices=[*GOOD_REASONS.items(), *BAD_REASONS.items()])
    comment = forms.CharField(required=False, max_length=5_000)
    better_answer = forms.CharField(required=False, max_length=LONGEST, strip=False)
    consent = forms.BooleanField(required=False)


class PickForm(forms.Form):
    over = forms.IntegerField(required=False)
    verdict = forms.ChoiceField(required=False, choices=[*Feedback.Verdict.choices, ("none", "Neither")])
