// Where the user is logged in: one session for each browser.

import { $, clock, el } from "./dom.js";

const path = "/bff/sessions";
const browsers = [[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrom(e|ium)\//, "Chrome"], [/Safari\//, "Safari"]];
const systems = [[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS X/, "macOS"], [/Linux/, "Linux"]];

let api = null;
let attempt = null;
let shown = "";

export async function show(callAPI, kindly) {
  api = callAPI;
  attempt = kindly;
  const answer = await attempt(() => api(path));
  if (!answer) return;
  const text = JSON.stringify(answer);
  if (text === shown) return; // a button under the pointer stays where it is
  shown = text;
  $("devices").replaceChildren(...answer.sessions.map(row));
  $("end-others").hidden = answer.sessions.length < 2;
}

export function reset() {
  shown = "";
  $("devices").replaceChildren();
}

function row(session) {
  const name = device(session.user_agent);
  const seen = session.current ? "in use" : `last seen ${clock(new Date(session.last_seen_at))}`;
  const since = `since ${clock(new Date(session.created_at))}, ${seen}, from ${session.address}`;
  const button = el("button", { class: "button quiet", type: "button", "aria-label": `End the session of ${name}` }, "End");
  button.addEventListener("click", () => end(`${path}/${encodeURIComponent(session.id)}`));
  return el("li", { class: session.current ? "current" : "" },
    el("span", {}, el("b", {}, name), el("small", {}, since)),
    session.current ? el("span", { class: "status new" }, "this browser") : button);
}

const end = (what) => attempt(() => api(what, { method: "DELETE" })).then(() => show(api, attempt));

// device names browser and system as people do.
function device(agent) {
  const name = (table) => table.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = name(browsers) ?? (agent.split(/[ /]/)[0] || "An unknown browser");
  const system = name(systems);
  return system ? `${browser} on ${system}` : browser;
}

$("end-others").addEventListener("click", () => end(path));
