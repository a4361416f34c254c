// The last request as the API received it, beside what this page sent.

import { $, clock, el, json } from "./dom.js";

// What the gateway puts on, whatever the browser sent.
const added = {
  authorization: "the session's access token, fresh",
  host: "the API's own address",
  via: "names the gateway",
  "x-forwarded-for": "the browser's address",
  "x-forwarded-host": "what the address bar shows",
  "x-forwarded-proto": "http or https",
  "x-request-id": "the same as in the gateway's log",
  traceparent: "trace context",
};

// What the browser sent and must not get through.
const removed = [
  ["cookie", "sessiongate=…", "the session cookie stays with the gateway"],
  ["x-csrf", "1", "was for the gateway: no other site can send it"],
];

export function show(echo) {
  $("line").replaceChildren(el("b", {}, echo.method), ` ${echo.path}`, el("span", {}, `received ${clock(new Date(echo.received_at))}`));
  const names = Object.keys(echo.headers).sort();
  const has = (name) => names.some((n) => n.toLowerCase() === name);
  const ours = names.filter((n) => n.toLowerCase() in added);
  const passed = names.filter((n) => !ours.includes(n));
  const line = (mark) => (name) => row(name, echo.headers[name].join(", "), mark, added[name.toLowerCase()]);
  $("headers").replaceChildren(
    ...ours.map(line("added")),
    ...removed.filter(([name]) => !has(name)).map(([name, value, why]) => row(name, value, "removed", why)),
  );
  $("passed").replaceChildren(...passed.map(line("passed")));
  $("passed-count").textContent = `${passed.length} headers passed as they came`;
  $("token").replaceChildren(json(echo.token));
}

function row(name, value, mark, why) {
  return el(
    "li",
    { class: mark },
    el("span", { class: "mark" }, mark),
    el("span", { class: "what" }, el("b", {}, name.toLowerCase()), el("span", { class: "value" }, value), why ? el("small", {}, why) : ""),
  );
}

export function reset() {
  $("line").textContent = "No call yet";
  $("headers").replaceChildren();
  $("passed").replaceChildren();
  $("token").replaceChildren();
}
