from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("demo", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="demo",
            name="attempts",
            field=models.PositiveSmallIntegerField(default=0, help_text="claims since it last got further"),
        ),
        migrations.AddField(
            model_name="demo",
            name="claim",
            field=models.UUIDField(
                blank=True, help_text="whoever holds it may write; none: nobody works on it", null=True
            ),
        ),
        migrations.AddField(
            model_name="demo",
            name="claimed_by",
            field=models.CharField(blank=True, help_text="the worker's process: host/boot/pid/start", max_length=200),
        ),
        migrations.AddField(
            model_name="demo",
            name="woken_at",
            field=models.DateTimeField(blank=True, help_text="when workers were last told of it", null=True),
        ),
        migrations.AlterField(
            model_name="demo",
            name="heartbeat_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
