"""The site under test: as strict as a careful project is, and its static files where a web server would have them."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE as PLAIN_MIDDLEWARE

ROOT_URLCONF = "tests.browser.urls"
TIME_ZONE = "UTC"
STATIC_ROOT = os.environ.get("TEST_STATIC_ROOT")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": os.environ.get("TEST_STORAGE", "django.contrib.staticfiles.storage.StaticFilesStorage")},
}
MIDDLEWARE = ["tests.browser.wsgi.strict", *PLAIN_MIDDLEWARE]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.request": {"handlers": ["console"], "level": "ERROR"}},
}
