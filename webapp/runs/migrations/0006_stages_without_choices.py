from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0005_redacted_files"),
    ]

    operations = [
        migrations.AlterField(
            model_name="run",
            name="stage",
            field=models.CharField(help_text="a name of training.contract.SPECS", max_length=12),
        ),
    ]
