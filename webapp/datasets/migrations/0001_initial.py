"""Corpora, documents and snapshots come from the app `runs`. Their tables exist; only their names change."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

KINDS = [
    ("documents", "Text"),
    ("demonstrations", "Demonstrations"),
    ("rankings", "Rankings"),
    ("judgments", "Judgments"),
    ("prompts", "Prompts"),
]


def primary_key():
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


def created_by():
    return models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL)


def part_of(model, related_name):
    return models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name=related_name, to=model)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("accounts", "0001_initial"),
        ("runs", "0006_stages_without_choices"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Corpus",
                    fields=[
                        ("id", primary_key()),
                        ("name", models.CharField(max_length=100)),
                        ("licence", models.CharField(blank=True, max_length=200)),
                        ("origin", models.CharField(blank=True, max_length=300)),
                        ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                        ("created_by", created_by()),
                        ("project", part_of("accounts.project", "corpora")),
                    ],
                    options={
                        "ordering": ("name",),
                        "db_table": "runs_corpus",
                        "constraints": [models.UniqueConstraint(fields=("project", "name"), name="corpus_name")],
                    },
                ),
                migrations.CreateModel(
                    name="Document",
                    fields=[
                        ("id", primary_key()),
                        ("text", models.TextField()),
                        (
                            "format",
                            models.CharField(
                                choices=[("text", "Text"), ("html", "HTML")], default="text", max_length=4
                            ),
                        ),
                        ("sha256", models.CharField(max_length=64)),
                        ("source_ref", models.CharField(blank=True, max_length=300)),
                        ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                        ("corpus", part_of("datasets.corpus", "documents")),
                    ],
                    options={
                        "ordering": ("id",),
                        "db_table": "runs_document",
                        "constraints": [models.UniqueConstraint(fields=("corpus", "sha256"), name="one_document")],
                    },
                ),
                migrations.CreateModel(
                    name="Snapshot",
                    fields=[
                        ("id", primary_key()),
                        ("kind", models.CharField(choices=KINDS, max_length=16)),
                        ("name", models.CharField(max_length=100)),
                        ("filters", models.JSONField(blank=True, default=dict, help_text="how the rows were chosen")),
                        ("content_hash", models.CharField(help_text="sha256 of its files", max_length=64)),
                        (
                            "files",
                            models.JSONField(
                                blank=True, default=dict, help_text="data file (train, heldout) → fsspec address"
                            ),
                        ),
                        ("counts", models.JSONField(blank=True, default=dict)),
                        ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                        (
                            "redacted_at",
                            models.DateTimeField(
                                blank=True,
                                help_text="when erased rows were last removed from its files",
                                null=True,
                            ),
                        ),
                        ("created_by", created_by()),
                        ("project", part_of("accounts.project", "snapshots")),
                    ],
                    options={"ordering": ("-id",), "db_table": "runs_snapshot"},
                ),
                migrations.CreateModel(
                    name="SnapshotItem",
                    fields=[
                        ("id", primary_key()),
                        (
                            "row",
                            models.BigIntegerField(
                                help_text="id of the document, demonstration, ranking, judgment or prompt"
                            ),
                        ),
                        ("heldout", models.BooleanField(default=False)),
                        (
                            "erased_at",
                            models.DateTimeField(
                                blank=True, help_text="when its author had the row's text removed", null=True
                            ),
                        ),
                        ("snapshot", part_of("datasets.snapshot", "items")),
                    ],
                    options={
                        "db_table": "runs_snapshotitem",
                        "indexes": [
                            models.Index(fields=["row", "snapshot"], name="runs_snapsh_row_253e16_idx"),
                            models.Index(
                                condition=models.Q(("erased_at__isnull", False)),
                                fields=["snapshot"],
                                name="erased_items",
                            ),
                        ],
                        "constraints": [models.UniqueConstraint(fields=("snapshot", "row"), name="one_snapshot_item")],
                    },
                ),
            ],
        ),
    ]
