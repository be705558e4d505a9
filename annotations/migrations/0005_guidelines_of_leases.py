from django.db import migrations

# A label names the guidelines of its time; its lease was shown no newer ones.
FROM_LABELS = """
UPDATE annotations_lease AS lease SET guidelines_id = label.guidelines_id FROM {table} AS label
WHERE label.lease_id = lease.id AND label.guidelines_id IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("annotations", "0004_drafts_and_guidelines_shown")]

    operations = [
        migrations.RunSQL(FROM_LABELS.format(table=table), migrations.RunSQL.noop)
        for table in ("annotations_demonstration", "annotations_ranking", "annotations_review")
    ]
