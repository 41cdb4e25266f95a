"""Django settings of the kill harness: one service that publishes its orders and receives them."""

import json
import os

SECRET_KEY = "for trials only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["redis_events", "tests.chaos.shop"]
DATABASES = {"default": json.loads(os.environ.get("CHAOS_DATABASE", '{"ENGINE": "django.db.backends.sqlite3"}'))}
REDIS_EVENTS = {
    "SERVICE": "shop",
    "LOCATION": os.environ.get("CHAOS_LOCATION", "memory://"),
    "PREFIX": "",
    "CHANNELS": {"orders": {"OUTBOX": True}, "others": {"TRANSPORT": "stream"}},
    "RETRY": {"attempts": 3, "delay": 0.001, "max_delay": 0.01},
    "MAX_DELIVERIES": 5,
    "PUBLISH_TIMEOUT": 1.0,
    "RECONNECT_MAX": 0.1,
    "POLL": 0.2,
    "CLAIM_AFTER": 30,
}
