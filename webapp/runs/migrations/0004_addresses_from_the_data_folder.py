"""Files of snapshots and runs in the data folder are named by their path from there, so that the folder can be moved."""

from django.conf import settings
from django.db import migrations

from webapp.registry.addresses import adopted


def adopt_all(files):
    return {name: adopted(address, settings.HOME, settings.ARTEFACTS_URL) for name, address in files.items()}


def adopt(apps, schema_editor):
    alias = schema_editor.connection.alias
    snapshots = apps.get_model("runs", "Snapshot").objects.using(alias)
    for pk, files in snapshots.values_list("pk", "files"):
        if (found := adopt_all(files)) != files:
            snapshots.filter(pk=pk).update(files=found)
    runs = apps.get_model("runs", "Run").objects.using(alias)
    for pk, outputs, result in runs.values_list("pk", "outputs", "result"):
        found = adopt_all(outputs)
        about = result.get("model", {})
        base = adopted(about.get("base") or "", settings.HOME, settings.ARTEFACTS_URL)
        if (found, base) != (outputs, about.get("base") or ""):
            runs.filter(pk=pk).update(outputs=found, result=result | {"model": about | {"base": base}})


class Migration(migrations.Migration):
    dependencies = [("runs", "0003_judgment_snapshots"), ("registry", "0002_addresses_from_the_data_folder")]

    operations = [migrations.RunPython(adopt, migrations.RunPython.noop, elidable=True)]
