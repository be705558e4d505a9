"""Models in the data folder are named by their path from there, so that the folder can be moved."""

from django.conf import settings
from django.db import migrations

from webapp.registry.addresses import adopted


def adopt(apps, schema_editor):
    models = apps.get_model("registry", "ModelVersion").objects.using(schema_editor.connection.alias)
    for model in models.only("artefact").iterator():
        address = adopted(model.artefact, settings.HOME, settings.ARTEFACTS_URL)
        if address != model.artefact:
            models.filter(pk=model.pk).update(artefact=address)


class Migration(migrations.Migration):
    dependencies = [("registry", "0001_initial")]

    operations = [migrations.RunPython(adopt, migrations.RunPython.noop, elidable=True)]
