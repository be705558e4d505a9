from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0003_messages_seen"),
        ("registry", "0005_deployments_that_fold_system"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="message",
            name="replies_under_way",
        ),
        migrations.AddField(
            model_name="message",
            name="claim",
            field=models.UUIDField(
                blank=True, help_text="whoever holds it may write; none: nobody works on it", null=True
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="claimed_by",
            field=models.CharField(blank=True, help_text="the worker's process: host/boot/pid/start", max_length=200),
        ),
        migrations.AlterField(
            model_name="message",
            name="heartbeat_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("state__in", ["pending", "streaming"])),
                fields=["created_at"],
                name="replies_under_way",
            ),
        ),
    ]
