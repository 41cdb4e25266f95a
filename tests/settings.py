"""Django settings of the tests and of the processes they start, which get their part through environment variables."""

import json
import os

SQLITE = os.environ.get("TEST_SQLITE", "")  # a file that processes can share; without it, pytest-django's own
APPS = [app for app in os.environ.get("TEST_APPS", "").split(",") if app]

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = os.environ.get("TEST_AUTO_FIELD", "django.db.models.BigAutoField")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "redis_events",
    "tests.testapp",
    *APPS,
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = {
    "default": json.loads(os.environ.get("TEST_DATABASE", "null"))
    or {"ENGINE": "django.db.backends.sqlite3", "NAME": SQLITE or ":memory:"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{SQLITE}.other" if SQLITE else ":memory:"},
}

REDIS_EVENTS = {
    "SERVICE": os.environ.get("TEST_SERVICE", "shop"),
    "LOCATION": os.environ.get("TEST_LOCATION", "memory://"),
    "PREFIX": os.environ.get("TEST_PREFIX", ""),
    "CHANNELS": json.loads(os.environ.get("TEST_CHANNELS", "{}")),
    **json.loads(os.environ.get("TEST_SETTINGS", "{}")),
}
