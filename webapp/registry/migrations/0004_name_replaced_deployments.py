from django.db import migrations


def name_what_was_replaced(apps, _schema_editor):
    """Of each deployment that was live, the one of another model that had been live before it."""
    Deployment = apps.get_model("registry", "Deployment")
    for project in Deployment.objects.order_by().values_list("project", flat=True).distinct():
        rows = Deployment.objects.filter(project=project)
        lived = [*rows.filter(state="retired").order_by("until", "id"), *rows.filter(state="live")]
        for earlier, later in zip(lived, lived[1:], strict=False):
            if earlier.model_id != later.model_id:
                later.replaced = earlier
            else:
                later.replaced = earlier.replaced
            later.save(update_fields=["replaced"])


class Migration(migrations.Migration):
    dependencies = [("registry", "0003_replaced_deployments")]

    operations = [migrations.RunPython(name_what_was_replaced, migrations.RunPython.noop)]
