// Orders, the event stream, and the two switches that break things.

import { $, clock, el } from "./dom.js";

let stream = null;
let api = null;
let attempt = null;

export function open(callAPI, kindly) {
  api = callAPI;
  attempt = kindly;
  attempt(list);
  stream = new EventSource("/api/ticker");
  stream.addEventListener("tick", (event) => say("live", `Live · ${clock(new Date(JSON.parse(event.data).time))}`));
  stream.onerror = () => say("", stream?.readyState === EventSource.CLOSED ? "Stream is closed" : "Stream reconnects");
}

export function close() {
  stream?.close();
  stream = null;
  say("", "Stream is closed");
}

function say(state, text) {
  $("ticker").className = `pill ${state}`;
  $("ticker").lastElementChild.textContent = text;
}

async function list() {
  const { orders } = await api("/api/orders");
  $("order-list").replaceChildren(
    ...orders.map((o) =>
      el("li", {}, el("span", {}, el("b", {}, o.item), el("small", { class: "mono" }, o.id)), el("span", { class: `status ${o.status}` }, o.status))),
  );
}

$("order").addEventListener("submit", (event) => {
  event.preventDefault();
  const item = $("item").value.trim();
  if (!item) return;
  attempt(async () => {
    await api("/api/orders", { method: "POST", json: { item } });
    event.target.reset();
    await list();
  });
});

for (const id of ["outage", "revoke"]) {
  $(id).addEventListener("click", async () => {
    const answer = await attempt(() => api(`/api/faults/${id}`, { method: "POST" }));
    if (!answer) return;
    $(id).lastElementChild.textContent = answer.says;
    setTimeout(() => ($(id).lastElementChild.textContent = answer.usually), 8000);
  });
}
