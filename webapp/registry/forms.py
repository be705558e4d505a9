"""The form by which a model goes live."""

from __future__ import annotations

from django import forms


class DeployForm(forms.Form):
    share = forms.IntegerField(
        label="Share of new conversations (%)",
        min_value=1,
        max_value=100,
        initial=100,
        help_text="100: it becomes the live model. Less: a canary beside the live one.",
    )
    why = forms.CharField(
        label="Reason",
        required=False,
        max_length=500,
        help_text="Optional; kept in the history for whoever asks later.",
    )
    sampling = forms.BooleanField(label="Sample as its authors advise", required=False)


class WhyForm(forms.Form):
    why = forms.CharField(required=False, max_length=500)
