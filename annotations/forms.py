"""What the labelling forms send, as the arguments of the services."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from django import forms
from django.http import QueryDict

from annotations.models import Flag, Lease, Review, Task
from webapp.errors import BadInput

UNDRAFTED: Final = frozenset({"token", "active_seconds"})


class Submission(forms.Form):
    """`token` is made with the page, so that a form sent twice is one label."""

    token = forms.UUIDField()
    active_seconds = forms.FloatField(required=False, min_value=0, max_value=86_400)

    def __init__(self, data: QueryDict, lease: Lease) -> None:
        super().__init__(data)
        self.sent = data
        self.shown: list[int] = lease.order_shown

    def arguments(self) -> dict[str, Any]:
        """For the service. Raises BadInput with what is wrong."""
        if not self.is_valid():
            name, errors = next(iter(self.errors.items()))
            raise BadInput(f"{name.replace('_', ' ').capitalize()}: {errors[0]}")
        return {**self.cleaned_data, "active_seconds": self.cleaned_data["active_seconds"] or 0.0}

    def draft(self) -> dict[str, Any]:
        """The fields as they were typed, whether or not they would do as a label."""
        names = [name for name in self.fields if name not in UNDRAFTED and name in self.sent]
        return {n: self.sent.getlist(n) if n.startswith("flags_") else self.sent[n] for n in names}


class WriteForm(Submission):
    text = forms.CharField(required=False, strip=False)


class ReviewForm(Submission):
    verdict = forms.ChoiceField(choices=Review.Verdict.choices, required=False)
    text = forms.CharField(required=False, strip=False)
    comment = forms.CharField(required=False, strip=False)


class RankForm(Submission):
    """A rank a reply, 1 the best; the same rank is a tie, and ranks may leave gaps."""

    strength = forms.FloatField(required=False)
    reason = forms.CharField(required=False, strip=False)

    def __init__(self, data: QueryDict, lease: Lease) -> None:
        super().__init__(data, lease)
        for response in self.shown:
            self.fields[f"rank_{response}"] = forms.IntegerField(required=False, min_value=1, max_value=9)
            self.fields[f"rating_{response}"] = forms.IntegerField(required=False)
            self.fields[f"flags_{response}"] = forms.MultipleChoiceField(choices=Flag.choices, required=False)

    def arguments(self) -> dict[str, Any]:
        values = super().arguments()
        groups: dict[int, list[int]] = defaultdict(list)
        for response in self.shown:
            if rank := values[f"rank_{response}"]:
                groups[rank].append(response)
        return {
            **{name: values[name] for name in ("token", "active_seconds", "strength", "reason")},
            "groups": [groups[rank] for rank in sorted(groups)],
            "ratings": {r: values[f"rating_{r}"] for r in self.shown if values[f"rating_{r}"] is not None},
            "flags": {r: values[f"flags_{r}"] for r in self.shown if values[f"flags_{r}"]},
        }


FORMS: Final[dict[str, type[Submission]]] = {
    Task.Kind.WRITE: WriteForm,
    Task.Kind.RANK: RankForm,
    Task.Kind.REVIEW: ReviewForm,
}
