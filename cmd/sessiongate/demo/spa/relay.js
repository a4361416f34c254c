// The access tokens this page has heard of, from what the API reports about each
// call: which token carried it, and since when that token exists.

import { $, clock, el } from "./dom.js";

const past = 90; // seconds of history in the lanes
const future = 35; // and what the present token still has
const rows = 6;
const most = 12; // tokens kept: more than fit in the lanes

const tokens = []; // {generation, jti, iat, exp, calls: [seconds], bar}, oldest first

export function reset() {
  for (const token of tokens) token.bar.remove();
  tokens.length = 0;
  shown = "none";
  draw();
}

// The provider numbers the tokens of a login: 0 is from the login itself.
export const refreshes = () => current()?.generation ?? 0;

export const current = () => tokens.at(-1);

// observe notes a call and the token that carried it. It says whether the token
// was new. Parallel calls may report out of order.
export function observe({ generation, jti, iat, exp }) {
  let token = tokens.find((t) => t.jti === jti);
  const fresh = !token;
  if (fresh) {
    token = { generation, jti, iat, exp, calls: [], bar: el("div", { class: "token-bar" }) };
    tokens.push(token);
    tokens.sort((a, b) => a.generation - b.generation);
    $("lanes").append(token.bar);
    while (tokens.length > most) tokens.shift().bar.remove();
  }
  token.calls.push(Date.now() / 1000);
  shown = "";
  draw();
  return fresh;
}

// state says where a token stands.
function state(token) {
  if (token !== current()) return "replaced";
  return token.exp > Date.now() / 1000 ? "in use" : "expired";
}

let shown = ""; // the states in the table, to touch it only when they change
function table() {
  const states = tokens.map(state).join();
  if (states === shown) return;
  shown = states;
  $("tokens").replaceChildren(
    ...tokens
      .map((t) => {
        const now = state(t);
        return el(
          "tr",
          { class: now.replace(" ", "-") },
          el("th", { scope: "row" }, `#${t.generation + 1}`),
          el("td", { class: "mono" }, t.jti.slice(0, 8)),
          el("td", {}, clock(new Date(t.iat * 1000))),
          el("td", {}, String(t.calls.length)),
          el("td", {}, el("span", { class: "state" }, t.generation === 0 ? `${now}, from the login` : now)),
        );
      })
      .reverse()
      .slice(0, rows),
  );
}

// draw places the bars: time runs to the left, what is right of now is to come.
export function draw() {
  table();
  const now = Date.now() / 1000;
  const left = (t) => ((t - now + past) / (past + future)) * 100;
  for (const token of tokens) {
    const from = Math.max(0, left(token.iat));
    const to = Math.min(100, left(token.exp));
    token.bar.hidden = to <= 0;
    if (token.bar.hidden) continue;
    token.bar.className = `token-bar lane-${token.generation % 2}${state(token) === "in use" ? " live" : ""}`;
    token.bar.style.left = `${from}%`;
    token.bar.style.width = `${Math.max(0, to - from)}%`;
    const notches = token.calls.slice(-60).filter((c) => left(c) > 0);
    while (token.bar.children.length > notches.length + 1) token.bar.lastChild.remove();
    if (!token.bar.firstChild) token.bar.append(el("span", { class: "label" }, ""));
    token.bar.firstChild.textContent = `#${token.generation + 1}`;
    while (token.bar.children.length < notches.length + 1) token.bar.append(el("i"));
    notches.forEach((c, n) => {
      token.bar.children[n + 1].style.left = `${((left(c) - from) / (to - from)) * 100}%`;
    });
  }
}
