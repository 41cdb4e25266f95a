"""Customers: order after order through the storefront's own page, as a browser would. Run as a file."""

import argparse
import itertools
import random
import re
import signal
import threading
import time
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

NAMES = ("Ada", "Alan", "Barbara", "Edsger", "Grace", "Katherine", "Leslie", "Tim")
ITEMS = ("tea", "coffee", "cup")
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
TIMEOUT = 30
"""Seconds the page may take."""


def main() -> None:
    options = arguments()
    home_time = threading.Event()  # the order in hand is finished first
    signal.signal(signal.SIGTERM, lambda number, frame: home_time.set())
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    numbers = range(options.orders) if options.orders is not None else itertools.count()
    began = time.monotonic()
    for number in numbers:
        due = began + number / options.rate if options.rate else began
        if home_time.wait(max(0.0, due - time.monotonic())):
            return
        place_order(browser, options.storefront)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storefront", help="address of the page")
    parser.add_argument("--orders", type=int, help="how many; without it, until stopped")
    parser.add_argument("--rate", type=float, default=0.0, help="orders a second; 0: as many as the page takes")
    return parser.parse_args()


def place_order(browser: OpenerDirector, storefront: str) -> None:
    """Fetch the form, fill it in, send it. Raises HTTPError or URLError, RuntimeError when the order is refused."""
    page = browser.open(storefront, timeout=TIMEOUT).read().decode()
    token = TOKEN.search(page)
    if token is None:
        raise RuntimeError("there is no form on the page")
    order = {"customer": random.choice(NAMES), "item": random.choice(ITEMS), "quantity": random.randint(1, 3)}
    form = urlencode({"csrfmiddlewaretoken": token[1], **order}).encode()
    answer = browser.open(Request(storefront, data=form), timeout=TIMEOUT).read().decode()
    if "errorlist" in answer:
        raise RuntimeError(f"the shop refused the order {order}")


if __name__ == "__main__":
    main()
