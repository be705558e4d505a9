"""Labeling by machine: take the next task, keep it, hand in what was made of it."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotations.models import Lease, Review, Task
from annotations.services import labels as label_services
from annotations.services import leases as lease_services
from webapp.api.base import Endpoint, ProjectEndpoint
from webapp.api.serializers import (
    DemonstrationSerializer,
    LeaseSerializer,
    NewDemonstration,
    NewRanking,
    NewReview,
    NextTask,
    RankingSerializer,
    ReviewSerializer,
    SkipTask,
)
from webapp.errors import NotFound


class NextLease(ProjectEndpoint):
    needs = {"POST": "label"}

    @extend_schema(request=NextTask, responses={200: LeaseSerializer, 204: None})
    def post(self, request: Request, slug: str) -> Response:
        """Lease the next task; 204 if there is none. A task that is in your hands already comes first."""
        kinds = [Task.Kind(kind) for kind in self.body(NextTask).get("kinds", [])]
        lease = lease_services.lease_next(person=self.person, project=self.project, kinds=kinds or None)
        return Response(LeaseSerializer(lease).data) if lease else Response(status=204)


class LeaseEndpoint(Endpoint):
    """A lease of one's own."""

    needs = {"POST": "label"}

    def lease(self, pk: int) -> Lease:
        rows = Lease.objects.filter(person=self.person).select_related("task__project", "task__prompt")
        lease: Lease = self.fetch(rows, pk, project=lambda row: row.task.project)
        return lease

    def lease_of_kind(self, pk: int, kind: Task.Kind) -> Lease:
        lease = self.lease(pk)
        if lease.task.kind != kind:
            raise NotFound(f"This task asks for something else: {lease.task.kind}.")
        return lease


class Renew(LeaseEndpoint):
    @extend_schema(request=None, responses=LeaseSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Keep the task for another while."""
        return Response(LeaseSerializer(lease_services.renew_lease(lease=self.lease(pk))).data)


class Release(LeaseEndpoint):
    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, pk: int) -> Response:
        """Give the task back."""
        lease_services.release(lease=self.lease(pk))
        return Response(status=204)


class SkipLease(LeaseEndpoint):
    @extend_schema(request=SkipTask, responses={204: None})
    def post(self, request: Request, pk: int) -> Response:
        """Give the task back for good: you are not asked again."""
        lease_services.skip(lease=self.lease(pk), **self.body(SkipTask))
        return Response(status=204)


class SubmitDemonstration(LeaseEndpoint):
    @extend_schema(request=NewDemonstration, responses={201: DemonstrationSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Hand in a reply."""
        lease = self.lease_of_kind(pk, Task.Kind.WRITE)
        label = label_services.submit_demonstration(lease=lease, **self.body(NewDemonstration))
        return Response(DemonstrationSerializer(label).data, status=201)


class SubmitRanking(LeaseEndpoint):
    @extend_schema(request=NewRanking, responses={201: RankingSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Hand in a ranking."""
        lease = self.lease_of_kind(pk, Task.Kind.RANK)
        label = label_services.submit_ranking(lease=lease, **self.body(NewRanking))
        return Response(RankingSerializer(label).data, status=201)


class SubmitReview(LeaseEndpoint):
    @extend_schema(request=NewReview, responses={201: ReviewSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Hand in a review of a demonstration."""
        lease = self.lease_of_kind(pk, Task.Kind.REVIEW)
        fields = self.body(NewReview)
        fields["verdict"] = Review.Verdict(fields["verdict"])
        label = label_services.submit_review(lease=lease, **fields)
        return Response(ReviewSerializer(label).data, status=201)
