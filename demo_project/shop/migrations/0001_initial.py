import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("customer", models.CharField(max_length=60, verbose_name="customer")),
                (
                    "item",
                    models.CharField(
                        choices=[("tea", "Tea, 4.50"), ("coffee", "Coffee, 7.90"), ("cup", "Cup, 12.00")],
                        default="tea",
                        max_length=10,
                        verbose_name="item",
                    ),
                ),
                (
                    "quantity",
                    models.PositiveSmallIntegerField(
                        default=1,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(20),
                        ],
                        verbose_name="quantity",
                    ),
                ),
                ("total", models.DecimalField(decimal_places=2, editable=False, max_digits=8, verbose_name="total")),
                (
                    "status",
                    models.CharField(
                        choices=[("placed", "placed"), ("invoiced", "invoiced")],
                        default="placed",
                        editable=False,
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                ("placed_at", models.DateTimeField(auto_now_add=True, verbose_name="placed at")),
            ],
            options={
                "verbose_name": "order",
                "verbose_name_plural": "orders",
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="Reaction",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.CharField(max_length=36, unique=True, verbose_name="event")),
                ("source", models.CharField(max_length=64, verbose_name="service")),
                ("text", models.CharField(max_length=200, verbose_name="text")),
                ("at", models.DateTimeField(verbose_name="at")),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reactions",
                        to="shop.order",
                        verbose_name="order",
                    ),
                ),
            ],
            options={
                "verbose_name": "reaction",
                "verbose_name_plural": "reactions",
                "ordering": ["at"],
            },
        ),
    ]
