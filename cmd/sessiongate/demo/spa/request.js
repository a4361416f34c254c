// The last request as the API received it, beside what this page sent.

import { $, clock, el, json } from "./dom.js";

// What the gateway puts on, whatever the browser sent.
const added = {
  authorization: "the session's access token, fresh",
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
  const names = Object.keys(echo.headers).sort((a, b) => (b.toLowerCase() in added) - (a.toLowerCase() in added) || a.localeCompare(b));
  const gone = removed.filter(([name]) => !names.some((n) => n.toLowerCase() === name));
  $("headers").replaceChildren(
    ...names.map((name) => row(name, echo.headers[name].join(", "), name.toLowerCase() in added ? "added" : "passed", added[name.toLowerCase()])),
    ...gone.map(([name, value, why]) => row(name, value, "removed", why)),
  );
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
  $("token").replaceChildren();
}
