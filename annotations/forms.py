"""What the labeling forms send, as the arguments of the services."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final
from uuid import UUID

from django import forms
from django.http import QueryDict

from annotations.models import Flag, Lease, Review, Task
from annotations.selectors import replies_shown
from annotations.services.drafts import PageState
from webapp.errors import BadInput


def refuse_invalid(form: forms.Form) -> None:
    """Raises BadInput with the first thing that is wrong."""
    if not form.is_valid():
        name, errors = next(iter(form.errors.items()))
        raise BadInput(f"{name.replace('_', ' ').capitalize()}: {errors[0]}")


class PageForm(forms.Form):
    """What a labeling page says of itself: which draft it began from, and for how long it was worked on."""

    token = forms.UUIDField(required=False)
    revision = forms.UUIDField(required=False)
    replaces = forms.CharField(required=False, max_length=400)
    typed_at = forms.IntegerField(required=False, min_value=0, max_value=2**53)
    active_seconds = forms.FloatField(required=False, min_value=0, max_value=86_400)

    def clean_replaces(self) -> list[UUID]:
        """Tokens of submissions whose answers the page never got, with spaces between them."""
        try:
            return [UUID(token) for token in self.cleaned_data["replaces"].split()]
        except ValueError:
            raise forms.ValidationError("give tokens of earlier submissions, with spaces between them.") from None

    def state(self) -> PageState:
        """For the services. Raises BadInput with what is wrong."""
        refuse_invalid(self)
        return PageState(
            began_from=self.cleaned_data["revision"],
            writer=self.cleaned_data["token"],
            earlier_writers=tuple(self.cleaned_data["replaces"]),
            typed_at=self.cleaned_data["typed_at"] or 0,
            active_seconds=self.cleaned_data["active_seconds"] or 0.0,
        )


class Submission(forms.Form):
    """`token` is made with the page, so that a form sent twice is one label."""

    token = forms.UUIDField()
    active_seconds = forms.FloatField(required=False, min_value=0, max_value=86_400)

    def __init__(self, data: QueryDict, lease: Lease) -> None:
        super().__init__(data)
        self.sent = data
        self.shown = [reply.pk for reply in replies_shown(lease)]

    def arguments(self) -> dict[str, Any]:
        """For the service. Raises BadInput with what is wrong."""
        refuse_invalid(self)
        return {**self.cleaned_data, "active_seconds": self.cleaned_data["active_seconds"] or 0.0}

    def draft(self) -> dict[str, Any]:
        """The fields as they were typed, whether or not they would do as a label."""
        names = [name for name in self.fields if name not in PageForm.base_fields and name in self.sent]
        return {n: self.sent.getlist(n) if n.startswith("flags_") else as_typed(str(self.sent[n])) for n in names}


class TypedText(forms.CharField):
    """What was typed, as it was typed; a form sent without scripts ends its lines with CR LF."""

    def __init__(self) -> None:
        super().__init__(required=False, strip=False)

    def to_python(self, value: Any) -> str:
        return as_typed(super().to_python(value) or "")


def as_typed(text: str) -> str:
    return text.replace("\r\n", "\n")


class WriteForm(Submission):
    text = TypedText()


class ReviewForm(Submission):
    verdict = forms.ChoiceField(choices=Review.Verdict.choices, required=False)
    text = TypedText()
    comment = TypedText()


class RankForm(Submission):
    """A rank a reply, 1 the best; the same rank is a tie, and ranks may leave gaps."""

    strength = forms.FloatField(required=False)
    reason = TypedText()

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
