from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="PublishedEvent",
            fields=[
                ("event_id", models.CharField(max_length=36, primary_key=True, serialize=False, verbose_name="event")),
                ("type", models.CharField(max_length=100, verbose_name="type")),
                ("key", models.CharField(max_length=100, verbose_name="key")),
                ("published_at", models.DateTimeField(auto_now_add=True, verbose_name="published at")),
            ],
            options={
                "verbose_name": "published event",
                "verbose_name_plural": "published events",
            },
        ),
    ]
