import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("annotations", "0001_initial"),
        ("registry", "0001_initial"),
        ("accounts", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Corpus",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("licence", models.CharField(blank=True, max_length=200)),
                ("origin", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="corpora", to="accounts.project"
                    ),
                ),
            ],
            options={
                "ordering": ("name",),
            },
        ),
        migrations.CreateModel(
            name="Document",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                (
                    "format",
                    models.CharField(choices=[("text", "Text"), ("html", "HTML")], default="text", max_length=4),
                ),
                ("sha256", models.CharField(max_length=64)),
                ("source_ref", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "corpus",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="documents", to="runs.corpus"
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="Match",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "winner",
                    models.CharField(
                        choices=[("left", "Left"), ("right", "Right"), ("tie", "Tie"), ("neither", "Both bad")],
                        max_length=8,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "author",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="matches", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "left",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="annotations.response"
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="matches", to="accounts.project"
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="matches", to="annotations.prompt"
                    ),
                ),
                (
                    "right",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="annotations.response"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(help_text="counts up in the project")),
                ("name", models.CharField(max_length=100)),
                (
                    "stage",
                    models.CharField(
                        choices=[
                            ("corpus", "corpus"),
                            ("tokenizer", "tokenizer"),
                            ("pretrain", "pretrain"),
                            ("sft", "sft"),
                            ("reward", "reward"),
                            ("ppo", "ppo"),
                            ("dpo", "dpo"),
                            ("evaluate", "evaluate"),
                            ("sample", "sample"),
                        ],
                        max_length=12,
                    ),
                ),
                ("config", models.JSONField(help_text="the stage's settings, without the sources")),
                (
                    "base_name",
                    models.CharField(
                        blank=True, help_text="hub name or folder, where base is not one of ours", max_length=300
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("claimed", "Starting"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Stopped"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0, help_text="starts since its last checkpoint")),
                (
                    "claim",
                    models.UUIDField(
                        blank=True, help_text="who holds this may write; a new claim shuts the old out", null=True
                    ),
                ),
                (
                    "claimed_by",
                    models.CharField(blank=True, help_text="the worker's process: host/boot/pid/start", max_length=200),
                ),
                (
                    "child",
                    models.CharField(blank=True, help_text="the training process: host/boot/pid/start", max_length=200),
                ),
                (
                    "woken_at",
                    models.DateTimeField(blank=True, help_text="when a worker was last told of it", null=True),
                ),
                ("heartbeat_at", models.DateTimeField(blank=True, null=True)),
                ("stop_requested_at", models.DateTimeField(blank=True, null=True)),
                ("step", models.PositiveIntegerField(default=0)),
                ("total", models.PositiveIntegerField(default=0)),
                ("phase", models.CharField(blank=True, max_length=100)),
                ("eta", models.FloatField(blank=True, help_text="seconds left", null=True)),
                (
                    "events_read",
                    models.BigIntegerField(default=0, help_text="bytes of events.jsonl already in the database"),
                ),
                ("error", models.TextField(blank=True)),
                ("error_code", models.CharField(blank=True, max_length=40)),
                ("result", models.JSONField(blank=True, default=dict)),
                ("outputs", models.JSONField(blank=True, default=dict, help_text="file of output/ → fsspec address")),
                (
                    "rank_replies",
                    models.BooleanField(default=False, help_text="a sample run: make rank tasks of its replies"),
                ),
                (
                    "imported_at",
                    models.DateTimeField(blank=True, help_text="when its replies became rank tasks", null=True),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "base",
                    models.ForeignKey(
                        blank=True,
                        help_text="base or policy",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="runs_from",
                        to="registry.modelversion",
                    ),
                ),
                (
                    "baseline",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="registry.modelversion",
                    ),
                ),
                (
                    "corpus_run",
                    models.ForeignKey(
                        blank=True,
                        help_text="whose cleaned text this reads",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="runs.run",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "output",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="run",
                        to="registry.modelversion",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="runs", to="accounts.project"
                    ),
                ),
                (
                    "reward",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="runs_rewarded",
                        to="registry.modelversion",
                    ),
                ),
                (
                    "stop_requested_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "tokenizer",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="registry.modelversion",
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="Metric",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("step", models.PositiveIntegerField()),
                ("name", models.CharField(max_length=80)),
                ("value", models.FloatField(help_text="none: not a number", null=True)),
                ("time", models.DateTimeField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="metrics", to="runs.run"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Evaluation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80)),
                ("value", models.FloatField()),
                ("low", models.FloatField(blank=True, null=True)),
                ("high", models.FloatField(blank=True, null=True)),
                ("n", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="evaluations",
                        to="registry.modelversion",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="evaluations",
                        to="runs.run",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="RunEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.BigIntegerField(help_text="byte offset of the line in events.jsonl")),
                ("type", models.CharField(max_length=12)),
                ("step", models.PositiveIntegerField(default=0)),
                ("time", models.DateTimeField()),
                ("data", models.JSONField(blank=True, default=dict)),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="events", to="runs.run"
                    ),
                ),
            ],
            options={
                "ordering": ("position",),
            },
        ),
        migrations.CreateModel(
            name="Snapshot",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("documents", "Text"),
                            ("demonstrations", "Demonstrations"),
                            ("rankings", "Rankings"),
                            ("prompts", "Prompts"),
                        ],
                        max_length=16,
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("filters", models.JSONField(blank=True, default=dict, help_text="how the rows were chosen")),
                ("content_hash", models.CharField(help_text="sha256 of its files", max_length=64)),
                (
                    "files",
                    models.JSONField(blank=True, default=dict, help_text="data file (train, heldout) → fsspec address"),
                ),
                ("counts", models.JSONField(blank=True, default=dict)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="snapshots", to="accounts.project"
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.AddField(
            model_name="run",
            name="snapshots",
            field=models.ManyToManyField(blank=True, related_name="runs", to="runs.snapshot"),
        ),
        migrations.CreateModel(
            name="SnapshotItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("row", models.BigIntegerField(help_text="id of the document, demonstration, ranking or prompt")),
                ("heldout", models.BooleanField(default=False)),
                (
                    "snapshot",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="items", to="runs.snapshot"
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="corpus",
            constraint=models.UniqueConstraint(fields=("project", "name"), name="corpus_name"),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(fields=("corpus", "sha256"), name="one_document"),
        ),
        migrations.AddConstraint(
            model_name="match",
            constraint=models.UniqueConstraint(fields=("author", "left", "right"), name="one_vote_a_match"),
        ),
        migrations.AddConstraint(
            model_name="metric",
            constraint=models.UniqueConstraint(fields=("run", "name", "step"), name="one_value_a_step"),
        ),
        migrations.AddConstraint(
            model_name="evaluation",
            constraint=models.UniqueConstraint(fields=("run", "model", "name"), name="one_figure_a_run"),
        ),
        migrations.AddConstraint(
            model_name="runevent",
            constraint=models.UniqueConstraint(fields=("run", "position"), name="one_event"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["state"], name="runs_run_state_1f5aa2_idx"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["project", "stage", "-id"], name="runs_run_project_35a272_idx"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(fields=("project", "number"), name="run_number"),
        ),
        migrations.AddIndex(
            model_name="snapshotitem",
            index=models.Index(fields=["row", "snapshot"], name="runs_snapsh_row_253e16_idx"),
        ),
        migrations.AddConstraint(
            model_name="snapshotitem",
            constraint=models.UniqueConstraint(fields=("snapshot", "row"), name="one_snapshot_item"),
        ),
    ]
