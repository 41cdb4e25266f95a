// Keeps an open page up to date: asks again every few seconds, rests while nobody looks, waits longer after failures.
"use strict";
(function () {
  const SLOWEST = 30, MOST_ROWS = 2000;
  const said = document.getElementById("re-said");
  const inside = document.getElementById("re-inside");
  const feed = document.getElementById("re-feed");

  function say(text) {
    if (said && said.textContent !== text) said.textContent = text;
  }

  // Ask again and again; `ask` resolves to what is said while all is well.
  function keepAsking(element, ask) {
    const every = Number(element.dataset.every);
    let wait = every, timer = null, busy = false;
    async function turn() {
      timer = null;
      if (document.hidden || busy) return;
      busy = true;
      try {
        say(await ask());
        wait = every;
      } catch (error) {
        wait = Math.min(SLOWEST, wait * 2);
        say(element.dataset.lost.replace("%s", wait));
      }
      busy = false;
      plan();
    }
    function plan() {
      if (timer === null && !document.hidden) timer = setTimeout(turn, wait * 1000);
    }
    document.addEventListener("visibilitychange", function () {
      if (document.hidden) { clearTimeout(timer); timer = null; } else if (!busy) { turn(); }
    });
    plan();
  }

  async function fetched(url, headers) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), 10000);
    try {
      const answer = await fetch(url, {headers: headers, cache: "no-store", credentials: "same-origin", redirect: "error", signal: stop.signal});
      if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
      return {status: answer.status, headers: answer.headers, text: answer.status === 304 ? "" : await answer.text()};
    } finally {
      clearTimeout(timer);
    }
  }

  // ------------------------------------------------------------- a page

  const FOCUSABLE = "a[href], button, input, summary, [tabindex]";

  function stateOf(root) {
    const focusable = Array.from(root.querySelectorAll(FOCUSABLE));
    const active = document.activeElement;
    return {
      focus: focusable.indexOf(active),
      target: active && root.contains(active) ? active.getAttribute("href") || active.value : null,
      open: Array.from(root.querySelectorAll("details"), (each) => each.open),
      ticked: Array.from(root.querySelectorAll("input[type=checkbox]:checked"), (each) => each.value),
      alerts: Array.from(root.querySelectorAll(".re-banner"), (each) => each.textContent),
      scrolled: Array.from(root.querySelectorAll(".re-scroll, .re-text"), (each) => [each.scrollLeft, each.scrollTop]),
    };
  }

  function restore(root, state) {
    root.querySelectorAll("details").forEach((each, index) => { each.open = Boolean(state.open[index]); });
    // What was said once is not said again with each change of the page.
    root.querySelectorAll("[role=alert]").forEach((each) => { if (state.alerts.includes(each.textContent)) each.removeAttribute("role"); });
    root.querySelectorAll("input[type=checkbox]").forEach((each) => { each.checked = state.ticked.includes(each.value); });
    root.querySelectorAll(".re-scroll, .re-text").forEach((each, index) => {
      const [left, top] = state.scrolled[index] || [0, 0];
      each.scrollLeft = left;
      each.scrollTop = top;
    });
    if (state.focus < 0) return;
    const focusable = Array.from(root.querySelectorAll(FOCUSABLE));
    const same = state.target && focusable.find((each) => (each.getAttribute("href") || each.value) === state.target);
    const next = same || focusable[Math.min(state.focus, focusable.length - 1)];
    if (next) next.focus({preventScroll: true});
  }

  function selects() {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && inside.contains(selection.anchorNode);
  }

  if (inside && inside.dataset.every) {
    const address = new URL(location.href);
    address.searchParams.set("_fragment", "1");
    let etag = "";
    keepAsking(inside, async function () {
      if (selects()) return inside.dataset.live;
      const answer = await fetched(address, etag ? {"If-None-Match": etag} : {});
      if (answer.status !== 304) {
        etag = answer.headers.get("ETag") || "";
        const state = stateOf(inside);
        inside.innerHTML = answer.text;
        restore(inside, state);
      }
      return inside.dataset.live;
    });
  }

  // ------------------------------------------------------------- the live feed

  if (feed) {
    const rows = feed.querySelector("tbody"), box = feed.querySelector(".re-rows");
    const pause = feed.querySelector("[data-re=pause]"), clear = feed.querySelector("[data-re=clear]");
    const wrap = feed.querySelector("[data-re=wrap]"), refresh = feed.querySelector("[data-re-refresh]");
    const waiting = document.createElement("tbody");
    let cursor = feed.dataset.cursor, paused = false, shown = "";
    refresh.hidden = true;
    [pause, clear, wrap].forEach((each) => { each.hidden = false; });

    function state() {
      if (!paused) return feed.dataset.live;
      return feed.dataset.paused + ": " + feed.dataset.new.replace("%s", waiting.rows.length);
    }

    // The newest is on top; who has scrolled down keeps what is in sight where it is.
    function put(source) {
      const before = box.scrollHeight, top = box.scrollTop;
      rows.prepend(...source.children);
      while (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
      if (top > 0) box.scrollTop = top + box.scrollHeight - before;
    }

    keepAsking(feed, async function () {
      const address = new URL(feed.dataset.url, location.href);
      address.searchParams.set("after", cursor);
      const answer = await fetched(address, {});
      const [news, banners] = answer.text.split("<!--banners-->");
      if (banners !== shown) inside.innerHTML = shown = banners;
      cursor = answer.headers.get("X-Cursor") || cursor;
      const fresh = document.createElement("tbody");
      fresh.innerHTML = news;
      if (paused) waiting.prepend(...fresh.children); else put(fresh);
      return state();
    });

    pause.addEventListener("click", function () {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      if (!paused) put(waiting);
      say(state());
    });
    clear.addEventListener("click", function () {
      rows.replaceChildren();
      waiting.replaceChildren();
      say(state());
    });
    wrap.querySelector("input").addEventListener("change", function (event) {
      box.classList.toggle("re-wrapped", event.target.checked);
    });
  }
})();
