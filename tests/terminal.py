"""Management commands run in this process, with what they say and how they end."""

from __future__ import annotations

import io
import json
from typing import Any

from django.core.management import CommandError, call_command


def run(command: str, *arguments: str, code: int = 0) -> str:
    """What a command writes to standard output, then to standard error; its exit code has to be this one."""
    out, errors = io.StringIO(), io.StringIO()
    ended: object = 0
    try:
        call_command(command, *arguments, stdout=out, stderr=errors)
    except SystemExit as exit:
        ended = exit.code
    except CommandError as error:
        ended = error.returncode
        errors.write(str(error))
    said = out.getvalue() + errors.getvalue()
    assert ended == code, said
    return said


def facts(command: str, *arguments: str, code: int = 0) -> Any:
    """The JSON document it writes."""
    return json.JSONDecoder().raw_decode(run(command, *arguments, "--format", "json", code=code))[0]
