"""A tab of the browser that remembers what went wrong in it, and what axe says of a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Response

# Noted before a page's own scripts run: what the policy refused.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.refused.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""
PLANTED = """
[...document.querySelectorAll("[src=x], [onerror], [onfocus], [onload], [href^='javascript:']")]
  .map((each) => each.outerHTML.slice(0, 200)).concat(window.executed ? ["executed"] : [])
"""
AXE = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}, "resultTypes": ["violations"], "preload": False}
"""Rules of WCAG 2.0, levels A and AA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A way to look at a page. ``height`` is in pixels; pages are longer."""

    name: str
    width: int
    height: int
    scheme: str = "light"

    @property
    def options(self) -> dict[str, Any]:
        return {"viewport": {"width": self.width, "height": self.height}, "color_scheme": self.scheme}


FORMS = (
    Form(name="light", width=1200, height=900),
    Form(name="dark", width=1200, height=900, scheme="dark"),
    Form(name="360", width=360, height=740),
)


class Tab:
    """A tab of somebody who is logged in. ``problems`` is what the console, the network and the policy had to say."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.address = address
        self.problems: list[str] = []
        self.took = 0.0
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.add_init_script(WATCH)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("response", self._note_response)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text} {message.location.get('url')}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def open(self, path: str) -> int:
        """Open a path of the site; returns the status. `took` is then how many seconds its answer needed."""
        response = self.page.goto(self.address + path, wait_until="load")
        assert response is not None
        timing = response.request.timing
        self.took = (timing["responseEnd"] - timing["requestStart"]) / 1000
        return response.status

    def refused(self) -> list[str]:
        """What the page's policy refused so far."""
        return list(self.page.evaluate("window.refused"))

    def planted(self) -> list[str]:
        """Elements that somebody's text has become. The policy would keep them from running; they may not be there."""
        return list(self.page.evaluate(PLANTED))

    def overflow(self) -> int:
        """Pixels by which the document is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def widest(self) -> list[str]:
        """The elements that stick out to the right."""
        return list(
            self.page.evaluate(
                "[...document.querySelectorAll('body *')].filter((each) => "
                "each.getBoundingClientRect().right > window.innerWidth + 1).slice(0, 5)"
                ".map((each) => each.outerHTML.slice(0, 120))"
            )
        )

    def complaints(self) -> dict[str, str]:
        """What axe finds: what it is and where, the same on each page that shares it, with the element as found."""
        from axe_playwright_python.base import AXE_SCRIPT

        self.page.evaluate(AXE_SCRIPT)
        result = self.page.evaluate(f"axe.run({json.dumps(AXE)})")
        return {
            _complaint(violation, node): node["html"][:200]
            for violation in result["violations"]
            for node in violation["nodes"]
        }

    def picture(self, path: Path, *, form: Form, height: int) -> None:
        """The top of the page as a PNG, at most `height` pixels of it."""
        whole = int(self.page.evaluate("document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": form.width, "height": min(whole, height)}
        self.page.screenshot(path=path, clip=clip, full_page=True)

    def close(self) -> None:
        self.page.context.close()


def _complaint(violation: dict[str, Any], node: dict[str, Any]) -> str:
    """A contrast is told by its colours, anything else by its selector: both are the same wherever stock has them."""
    colours = next(filter(None, map(_colours, node["any"])), None)
    return f"{violation['id']}: {colours or ' '.join(map(str, node['target']))}"


def _colours(check: dict[str, Any]) -> str:
    data = check["data"] if isinstance(check["data"], dict) else {}
    names = ("fgColor", "bgColor") if "fgColor" in data else ("nodeColor", "parentColor")
    return " on ".join(str(data[name]) for name in names if name in data)


def log_in(browser: Browser, address: str, *, user: str) -> Any:
    """The cookies of a user, whose password is the name, for contexts to begin with."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}/admin/login/")
    page.fill("#id_username", user)
    page.fill("#id_password", user)
    page.click("input[type=submit]")
    page.wait_for_url(f"{address}/admin/")
    state = context.storage_state()
    context.close()
    return state


def open_tab(browser: Browser, address: str, *, state: Any, form: Form = FORMS[0]) -> Tab:
    """A tab in a context of its own, which ends with it."""
    return Tab(browser.new_context(**form.options, storage_state=state, locale="en-US", timezone_id="UTC"), address)
