// Keeps the list of orders fresh: asks every second while somebody looks, less and less often while nobody answers.
"use strict";
const orders = document.getElementById("orders");
let pause = 1000;

async function refresh() {
  try {
    const answer = await fetch(orders.dataset.url);
    if (!answer.ok) throw new Error(answer.status);
    const list = await answer.text();
    if (list !== orders.dataset.shown) orders.innerHTML = orders.dataset.shown = list;
    pause = 1000;
  } catch {
    pause = Math.min(pause * 2, 30000);
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, pause);
}

setTimeout(keepFresh, pause);
