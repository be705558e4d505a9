from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("datasets", "0001_initial"), ("runs", "0007_datasets")]

    operations = [
        migrations.AlterModelTable(name="corpus", table=None),
        migrations.AlterModelTable(name="document", table=None),
        migrations.AlterModelTable(name="snapshot", table=None),
        migrations.AlterModelTable(name="snapshotitem", table=None),
        migrations.RenameIndex(
            model_name="snapshotitem", old_name="runs_snapsh_row_253e16_idx", new_name="snapshot_items_by_row"
        ),
    ]
