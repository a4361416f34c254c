// The page: hears from the gateway who is logged in, and shows it. Whatever it
// knows is in this page's memory; a reload starts from nothing but the cookie.

import { bff } from "/bff/client.js";
import * as devices from "./devices.js";
import { $, clock, el, span } from "./dom.js";
import * as ending from "./ending.js";
import * as gate from "./gate.js";
import * as live from "./live.js";
import * as relay from "./relay.js";
import * as request from "./request.js";

let known = null; // what the gateway said of the session
let asked = 0; // when, in ms
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
    const text = gate.inWords(problem);
    if (!text) throw problem;
    if (!gate.loggedOut(problem)) notice("failure", text, "bad");
    return undefined;
  }
}

// api calls, and tells when an answer takes its time: the helper is waiting for an
// outage to end.
const waiting = new Set();
async function api(path, init) {
  const self = {};
  const onWait = (why) => {
    waiting.add(self);
    notice("outage", why ?? "No answer yet: the gateway said when to ask again, and bff.fetch does.");
  };
  const late = setTimeout(onWait, 1500);
  try {
    return await gate.call(path, { ...init, onWait });
  } finally {
    clearTimeout(late);
    waiting.delete(self);
    if (waiting.size === 0) notice("outage");
  }
}

// Asking never extends the session.
const ask = () => attempt(async () => take(await bff.session()));

// take shows what the gateway says, asked or not.
function take(me) {
  const former = known;
  known = me;
  asked = performance.now();
  if (me.authenticated) showIn(former);
  else showOut();
  return me;
}

function showIn(former) {
  const { user, session, access_token: token } = known;
  longest.lifetime = Math.max(longest.lifetime, session.expires_in);
  longest.idle = Math.max(longest.idle, session.idle_expires_in);
  longest.token = Math.max(longest.token, token?.expires_in ?? 0);
  $("created").textContent = clock(new Date(session.created_at));
  $("created").dateTime = session.created_at;
  $("logout-link").href = `${known.logout_url}&returnUrl=${encodeURIComponent(goodbye)}`;
  const name = user.name ?? user.sub;
  const shown = { ...user, name, email: user.email ?? "", roles: [user.roles ?? "none"].flat().join(", "), initials: initials(name) };
  for (const element of document.querySelectorAll("[data-me]")) element.textContent = shown[element.dataset.me] ?? "";
  // The link out of the session is that session's own.
  if (former?.logout_url !== known.logout_url) {
    reset();
    document.body.dataset.state = "in";
    ending.begin();
    live.open(api, attempt);
    devices.show(api, attempt);
    callAPI().then(arrive); // the answer moves what is below it
  }
  tick();
}

const goodbye = "/#/goodbye";

function showOut() {
  const was = document.body.dataset.state;
  if (was === "in") {
    ending.witness(`bff.onSession told: ${known.reason}`);
    scrollTo({ top: 0, behavior: "instant" }); // where it says why
  }
  document.body.dataset.state = "out";
  reset();
  const text = location.hash === "#/goodbye" ? "You are logged out, here and at the provider." : (ending.why(known.reason) ?? "");
  if (text || was !== "out") ending.over(text);
}

// reset forgets what belongs to one session.
function reset() {
  live.close();
  devices.reset();
  relay.reset();
  request.reset();
  notice("failure");
  $("burst-result").hidden = true;
}

const login = (options) => attempt(() => bff.login({ ...(location.hash === "#/goodbye" && { returnUrl: "/" }), ...options }));

const initials = (name) =>
  name.split(/\s+/).filter((_, i, all) => i === 0 || i === all.length - 1).map((w) => [...w][0]).join("").toUpperCase();

// arrive goes to the section that the address names.
function arrive() {
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
  ending.approach(left);
}

async function callAPI() {
  const echo = await attempt(() => api("/api/echo?from=demo"));
  if (!echo) return undefined;
  request.show(echo);
  relay.observe(echo.token.claims);
  $("provider-link").href = `${echo.token.claims.iss}/logout`;
  await ask();
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
  const expiresIn = async () => (await attempt(bff.session))?.access_token?.expires_in;
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
$("login").addEventListener("click", () => login());
$("login-popup").addEventListener("click", () => login({ popup: true }));
for (const id of ["logout-post", "leave"]) {
  $(id).addEventListener("click", () => attempt(() => bff.logout({ returnUrl: goodbye })));
}
addEventListener("hashchange", arrive);

const inView = () => !document.hidden && document.body.dataset.state === "in";
setInterval(tick, 250);
setInterval(() => inView() && devices.show(api, attempt), 5000);
setInterval(() => {
  if ($("auto").checked && !busy && waiting.size === 0 && inView() && !$("ending").open) callAPI();
}, 3000);
look();
bff.onSession(take);
ask(); // as onSession does, but it says so when there is no answer
