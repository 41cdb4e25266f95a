"""A Django process that has done nothing but connect to its database."""

import sys

import django


def main() -> None:
    django.setup()
    from django.db import connection

    connection.ensure_connection()
    print("Idle", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
