"""Corpora, documents and snapshots go to the app `datasets`, which takes over their tables."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0006_stages_without_choices"), ("datasets", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name="run",
                    name="snapshots",
                    field=models.ManyToManyField(blank=True, related_name="runs", to="datasets.snapshot"),
                ),
                migrations.DeleteModel(name="SnapshotItem"),
                migrations.DeleteModel(name="Snapshot"),
                migrations.DeleteModel(name="Document"),
                migrations.DeleteModel(name="Corpus"),
            ],
        ),
    ]
