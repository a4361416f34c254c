// The page: asks the gateway who is logged in, and shows it. Whatever it knows is
// in this page's memory; a reload starts from nothing but the cookie.

import { $, clock, el, span } from "./dom.js";
import * as gate from "./gate.js";
import * as live from "./live.js";
import * as relay from "./relay.js";
import * as request from "./request.js";

const reasons = {
  idle_timeout: "Your session ended: nobody used it for a while.",
  lifetime: "Your session ended: it had lived its full time.",
  logout: "You are logged out.",
  backchannel: "You logged out at the provider.",
  frontchannel: "You logged out at the provider.",
  revoked: "An administrator ended your session.",
  refresh_rejected: "Your session ended: the provider took your login back.",
  token_expired: "Your session ended: its access token ran out and there was no way to a new one.",
  replaced: "Your session ended: this browser logged in again.",
};

let known = null; // the last answer of /bff/session
let asked = 0; // when it came, in ms
let busy = false; // the burst is under way: automatic calls wait
const longest = { lifetime: 1, idle: 1, token: 30 }; // what the meters count as full

// Notices: one for each subject, gone when that subject is fine again.
const notices = new Map();
function notice(subject, text, tone = "warn") {
  if (!text) {
    notices.get(subject)?.remove();
    notices.delete(subject);
    return;
  }
  if (!notices.has(subject)) {
    notices.set(subject, el("p", {}));
    $("notices").append(notices.get(subject));
  }
  const p = notices.get(subject);
  p.className = `notice ${tone}`;
  if (p.textContent !== text) p.textContent = text;
}

// attempt runs what the user asked for and is kind about failures.
async function attempt(work) {
  try {
    const result = await work();
    notice("failure");
    return result;
  } catch (problem) {
    if (!(problem instanceof gate.Problem)) throw problem;
    if (problem.loggedOut) showOut(problem.reason);
    else notice("failure", `${problem.message} (${problem.code})`, "bad");
    return undefined;
  }
}

// api calls, and tells while it has to wait for an outage to end.
const waiting = new Set();
async function api(path, init) {
  const self = {};
  const onWait = (problem) => {
    waiting.add(self);
    notice("outage", `${problem.message} Asking again every ${problem.retryAfter} s.`);
  };
  try {
    return await gate.call(path, { ...init, onWait });
  } finally {
    waiting.delete(self);
    if (waiting.size === 0) notice("outage");
  }
}

const session = () => api(gate.sessionPath);

async function ask() {
  const answer = await attempt(session);
  if (!answer) return;
  known = answer;
  asked = performance.now();
  if (answer.authenticated) showIn();
  else showOut(answer.reason);
}

function showIn() {
  const { user, session, access_token: token } = known;
  longest.lifetime = Math.max(longest.lifetime, session.expires_in);
  longest.idle = Math.max(longest.idle, session.idle_expires_in);
  longest.token = Math.max(longest.token, token?.expires_in ?? 0);
  $("created").textContent = clock(new Date(session.created_at));
  $("created").dateTime = session.created_at;
  $("logout-link").href = gate.logoutURL(known.logout_url);
  const name = user.name ?? user.sub;
  const shown = { ...user, name, email: user.email ?? "", roles: [user.roles ?? "none"].flat().join(", "), initials: initials(name) };
  for (const element of document.querySelectorAll("[data-me]")) element.textContent = shown[element.dataset.me] ?? "";
  if (document.body.dataset.state !== "in") {
    document.body.dataset.state = "in";
    live.open(api, attempt);
    callAPI().then(arrive); // the answer moves what is below it
  }
  tick();
}

function showOut(reason) {
  const was = document.body.dataset.state;
  document.body.dataset.state = "out";
  live.close();
  relay.reset();
  request.reset();
  notice("failure");
  $("burst-result").hidden = true;
  const goodbye = location.hash === "#/goodbye" && !(reason in reasons);
  const elsewhere = was === "in" ? "You are logged out. Perhaps another tab did it." : "";
  const text = goodbye ? "You are logged out, here and at the provider." : (reasons[reason] ?? elsewhere);
  if (text || was !== "out") {
    $("reason").textContent = text;
    $("reason").hidden = !text;
  }
  linkLogin();
}

function linkLogin() {
  if (location.hash === "#/goodbye") $("login").href = "/bff/login?returnUrl=%2F";
  else $("login").href = gate.loginURL(known?.login_url ?? "/bff/login");
}

const initials = (name) =>
  name.split(/\s+/).filter((_, i, all) => i === 0 || i === all.length - 1).map((w) => [...w][0]).join("").toUpperCase();

// arrive goes to the section that the address names.
function arrive() {
  linkLogin();
  const id = location.hash.slice(2);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (document.body.dataset.state === "in" && id && $(id)) $(id).scrollIntoView({ block: "start" });
}

// tick moves every countdown on. It asks nobody.
function tick() {
  if (document.body.dataset.state !== "in") return;
  const since = (performance.now() - asked) / 1000;
  const left = { lifetime: known.session.expires_in - since, idle: known.session.idle_expires_in - since };
  for (const name of ["lifetime", "idle"]) {
    $(name).textContent = span(left[name]);
    $(`${name}-bar`).style.width = `${Math.max(0, Math.min(1, left[name] / longest[name])) * 100}%`;
  }
  const token = Math.max(0, Math.ceil((known.access_token?.expires_in ?? 0) - since));
  $("token-left").textContent = token || "expired";
  $("token-unit").textContent = token ? (token === 1 ? "second left" : "seconds left") : "the next call renews it";
  $("ring").classList.toggle("expired", token === 0);
  $("ring").style.setProperty("--left", token / longest.token);
  $("refreshes").textContent = relay.refreshes();
  $("refreshes-unit").textContent = relay.refreshes() === 1 ? "refresh since login" : "refreshes since login";
  relay.draw();
  if (left.lifetime < -1 || left.idle < -1) ask();
}

async function callAPI() {
  const echo = await attempt(() => api("/api/echo?from=demo"));
  if (!echo) return undefined;
  request.show(echo);
  if (relay.observe(echo.token.claims)) await ask();
  return echo;
}

// The burst waits until the token has expired, so that every call needs a fresh
// one. Before that it learns which token is the last, once no refresh is under
// way: a call in a token's last seconds starts one in the background.
async function burst() {
  const say = (...content) => {
    $("burst-result").hidden = false;
    $("burst-result").replaceChildren(...content);
  };
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const expiresIn = async () => (await attempt(session))?.access_token?.expires_in;
  busy = true;
  $("burst").disabled = true;
  try {
    await pause(1500);
    if ((await expiresIn()) > 10) await callAPI();
    const before = relay.current();
    for (let left = await expiresIn(); left > 0; left = await expiresIn()) {
      for (let s = Math.ceil(left); s > 0; s--) {
        say(`No calls for ${s} s, until the token has expired …`);
        await pause(1000);
      }
    }
    await pause(1100); // whole seconds: at 0 the token may have part of one left
    if (document.body.dataset.state !== "in") return;
    say("50 calls are under way …");
    const began = performance.now();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => attempt(() => api(`/api/echo?call=${i + 1}`))));
    const good = answers.filter(Boolean);
    if (good.length === 0) return say("No call came through.");
    good.forEach((echo) => relay.observe(echo.token.claims));
    const distinct = new Set(good.map((echo) => echo.token.claims.jti)).size;
    const refreshed = relay.current().generation - (before?.generation ?? 0);
    const part = (n, text) => el("span", {}, el("b", {}, String(n)), ` ${text}`);
    say(part(good.length, "calls answered"), part(distinct, distinct === 1 ? "distinct token" : "distinct tokens"),
      part(refreshed, refreshed === 1 ? "refresh served them all" : "refreshes"), part(Math.round(performance.now() - began), "ms"));
    await ask();
  } finally {
    busy = false;
    $("burst").disabled = false;
  }
}

// look shows all that scripts can find in this browser.
async function look() {
  const databases = (await indexedDB.databases?.()) ?? [];
  const caches = "caches" in window ? await window.caches.keys() : [];
  const rows = [
    ["document.cookie", document.cookie],
    ["localStorage", Object.keys(localStorage).join(", ")],
    ["sessionStorage", Object.keys(sessionStorage).join(", ")],
    ["IndexedDB", databases.map((d) => d.name).join(", ")],
    ["Cache storage", caches.join(", ")],
  ];
  $("holds").replaceChildren(...rows.map(([name, found]) =>
    el("li", { class: found ? "full" : "empty" }, el("code", {}, name), el("span", {}, found || "empty"))));
}

$("call").addEventListener("click", callAPI);
$("burst").addEventListener("click", burst);
$("look").addEventListener("click", look);
$("logout-post").addEventListener("click", () => attempt(gate.logout));
addEventListener("hashchange", arrive);
document.addEventListener("visibilitychange", () => document.hidden || ask());
addEventListener("pageshow", (event) => event.persisted && ask()); // back from the provider's page

setInterval(tick, 250);
setInterval(() => document.hidden || document.body.dataset.state === "in" && ask(), 4000);
setInterval(() => {
  if ($("auto").checked && !busy && waiting.size === 0 && !document.hidden && document.body.dataset.state === "in") callAPI();
}, 3000);
look();
ask();
