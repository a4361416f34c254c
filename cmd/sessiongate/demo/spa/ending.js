// How a session ends: the question before, and afterwards the reason and how this
// page heard of it.

import { bff } from "/bff/client.js";
import { $, clock, el, span } from "./dom.js";

const reasons = {
  idle_timeout: "Your session ended: nobody used it for a while.",
  lifetime: "Your session ended: it had lived its full time.",
  logout: "You are logged out.",
  backchannel: "You logged out at the provider, so you are logged out here.",
  frontchannel: "You logged out at the provider, so you are logged out here.",
  revoked: "Your session was ended from another device, or by an administrator.",
  refresh_rejected: "Your session ended: the provider took your login back.",
  token_expired: "Your session ended: its access token ran out and there was no way to a new one.",
  replaced: "Your session ended: this browser logged in again.",
};

const asksBefore = 60; // seconds; the gateway tells of an end that early
const title = document.title;

// approach shows the question while an end is near. left is in seconds.
export function approach(left) {
  const rest = Math.min(left.lifetime, left.idle);
  const near = rest <= asksBefore;
  if (near !== $("ending").open) near ? $("ending").showModal() : $("ending").close();
  // The gateway may be a little late with the idle end, and is never early.
  const soon = rest >= 1 ? span(rest) : "a moment";
  document.title = near ? `${soon} · ${title}` : title;
  if (!near) return;
  const forGood = left.lifetime < left.idle;
  $("ending-left").textContent = soon;
  $("ending-why").textContent = forGood
    ? "Then the session has lived its full time, and using it does not help. A new login begins a new one."
    : "Nobody has called the API for four minutes. A call, or this button, begins the five minutes anew, in every tab.";
  $("stay").textContent = forGood ? "Log in again" : "Stay logged in";
  $("stay").onclick = () => (forGood ? bff.login({ popup: true }) : bff.stay().catch(() => {}));
}

// over shows why there is no session; empty if nothing was there to end.
export function over(text) {
  $("ending").close();
  document.title = title;
  $("reason-text").textContent = text;
  $("reason").hidden = !text;
}

// why puts a reason into words, if the gateway gave one.
export const why = (reason) => reasons[reason];

// witness notes what told this page of the end, and when.
export function witness(what) {
  const now = new Date();
  const ms = String(now.getMilliseconds()).padStart(3, "0");
  $("evidence").append(el("li", {}, el("time", { class: "mono" }, `${clock(now)}.${ms}`), " ", what));
}

// begin forgets the end before.
export function begin() {
  over("");
  $("evidence").replaceChildren();
}

$("ending").addEventListener("cancel", (event) => {
  event.preventDefault();
  $("stay").click();
});
