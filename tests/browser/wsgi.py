"""What gunicorn runs, and the policy that each of its pages has to live with."""

from collections.abc import Callable

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse

Answer = Callable[[HttpRequest], HttpResponse]


def strict(get_response: Answer) -> Answer:
    """Middleware: nothing inline, nothing from elsewhere."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer


application = get_wsgi_application()
