"""Settings of the measured Django project; the runner hands over server, database and apps in environment variables."""

import json
import os

SECRET_KEY = "for benchmarks only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["benchmarks.project", *filter(None, os.environ["BENCH_APPS"].split(","))]
DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
REDIS_EVENTS = {
    "SERVICE": "shop",
    "LOCATION": os.environ["BENCH_REDIS_URL"],
    "CHANNELS": {
        "bench.stream": {"TRANSPORT": "stream"},
        "bench.once.*": {"TRANSPORT": "stream"},
        "bench.outbox": {"OUTBOX": True},
    },
}
