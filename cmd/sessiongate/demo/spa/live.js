// Orders, the live feed, and the two switches that break things.

import { $, clock, el } from "./dom.js";
import { witness } from "./ending.js";

const sessionEnded = 4401; // the gateway's close code; the reason says why

let feed = null;
let api = null;
let attempt = null;

// open connects for a session. The feed of a former one is the gateway's to close.
export function open(callAPI, kindly) {
  api = callAPI;
  attempt = kindly;
  attempt(list);
  connect();
}

// close forgets the feed. It stays to hear how the gateway closes it.
export function close() {
  feed = null;
  say("", "Feed is closed");
}

function connect() {
  const mine = (feed = new WebSocket(`${location.origin.replace(/^http/, "ws")}/api/feed`));
  mine.onmessage = ({ data }) => mine === feed && say("live", `Live · ${clock(new Date(JSON.parse(data).time))}`);
  mine.onclose = ({ code, reason }) => {
    if (code === sessionEnded) witness(`WebSocket closed: ${code} ${reason}`);
    if (mine !== feed) return;
    feed = null;
    if (code === sessionEnded) return say("", `Closed: ${code} ${reason}`);
    say("", "Feed connects again");
    setTimeout(() => feed ?? (document.body.dataset.state === "in" && connect()), 2000);
  };
}

function say(state, text) {
  $("feed").className = `pill ${state}`;
  $("feed").lastElementChild.textContent = text;
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
