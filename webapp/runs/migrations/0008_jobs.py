"""Only runs that a worker has are claimed."""

from django.db import migrations, models


def free_runs(apps, schema_editor):
    runs = apps.get_model("runs", "Run").objects.using(schema_editor.connection.alias)
    runs.exclude(state__in=("claimed", "running")).update(claim=None)


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_datasets")]

    operations = [
        migrations.AlterField(
            model_name="run",
            name="attempts",
            field=models.PositiveSmallIntegerField(default=0, help_text="claims since it last got further"),
        ),
        migrations.AlterField(
            model_name="run",
            name="claim",
            field=models.UUIDField(
                blank=True, help_text="whoever holds it may write; none: nobody works on it", null=True
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="woken_at",
            field=models.DateTimeField(blank=True, help_text="when workers were last told of it", null=True),
        ),
        migrations.RunPython(free_runs, migrations.RunPython.noop, elidable=True),
    ]
