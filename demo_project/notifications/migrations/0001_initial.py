from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Push",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.CharField(max_length=36, unique=True, verbose_name="event")),
                ("text", models.CharField(max_length=200, verbose_name="text")),
                ("sent_at", models.DateTimeField(auto_now_add=True, verbose_name="sent at")),
            ],
            options={
                "verbose_name": "push",
                "verbose_name_plural": "pushes",
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="Toast",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.CharField(max_length=36, unique=True, verbose_name="event")),
                ("order_id", models.PositiveBigIntegerField(verbose_name="order")),
                ("text", models.CharField(max_length=200, verbose_name="text")),
                ("shown_at", models.DateTimeField(auto_now_add=True, verbose_name="shown at")),
            ],
            options={
                "verbose_name": "toast",
                "verbose_name_plural": "toasts",
                "ordering": ["-pk"],
            },
        ),
    ]
