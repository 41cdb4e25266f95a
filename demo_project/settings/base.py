"""What the three services have in common: Django's usual settings, and which Redis they talk to."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DEMO_DATA") or PROJECT / "var")
DATA.mkdir(parents=True, exist_ok=True)

DEBUG = True
SECRET_KEY = "the demo listens on this machine only"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "demo_project.urls"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Cookies know no ports: with the usual names a visit here would log you out of your own project on localhost.
SESSION_COOKIE_NAME = "demo_session"
CSRF_COOKIE_NAME = "demo_csrf"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "redis_events",
    "demo_project",
]
SILENCED_SYSTEM_CHECKS = [
    "redis_events.W002",  # the channels of `once` receivers are streams: other services say so, which no check can ask
    "redis_events.W003",  # each service leaves out the apps of the other two on purpose
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime}.{msecs:03.0f} {message}", "datefmt": "%H:%M:%S", "style": "{"},
    },
    "handlers": {"line": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "demo_project": {"handlers": ["line"], "level": "INFO"},
        "django.server": {"level": os.environ.get("DEMO_ACCESS_LOG") or "INFO"},
    },
}


def database(service: str) -> dict[str, dict[str, object]]:
    """DATABASES of one service: a file of its own. Web process and listener write to it, so writers must wait."""
    return {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA / f"{service}.sqlite3",
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            },
        }
    }


def redis_events(service: str, *, outboxes: tuple[str, ...] = ()) -> dict[str, object]:
    """REDIS_EVENTS of one service, with its channels that lose nothing. The server is $REDIS_URL, else localhost."""
    channels = {channel: {"OUTBOX": True} for channel in outboxes}
    return {"SERVICE": service, "PREFIX": os.environ.get("DEMO_PREFIX", ""), "CHANNELS": channels}
