from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0014_delete_match")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="outputs_removed_at",
            field=models.DateTimeField(blank=True, help_text="when the files of an export were deleted", null=True),
        ),
    ]
