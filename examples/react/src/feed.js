// The live feed: one WebSocket for the whole app. It is not a component's, because it lives longer than any page: it ends
// when the session does, and nobody has to close it.
import { useEffect, useSyncExternalStore } from "react";
import { bff } from "/bff/client.js";

const sessionEnded = 4401; // the gateway's close code; the close reason says why
const longestWait = 30_000;

// status: closed, connecting, open, waiting (until retryAt) or ended (with the reason).
let state = { status: "closed", messages: [] };
let socket;
let timer;
let failures = 0;
const listeners = new Set();

function set(change) {
  state = { ...state, ...change };
  for (const listener of listeners) listener();
}

function start() {
  if (socket || timer) return;
  connect();
}

function connect() {
  clearTimeout(timer);
  timer = undefined;
  set({ status: "connecting", code: undefined, reason: undefined, retryAt: undefined });
  // The handshake carries the cookie, and the gateway adds the access token: no token in the URL.
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/api/feed");
  socket.onopen = () => {
    failures = 0;
    set({ status: "open" });
  };
  socket.onmessage = ({ data }) => set({ messages: [JSON.parse(data), ...state.messages].slice(0, 50) });
  socket.onclose = closed;
}

async function closed({ code, reason }) {
  socket = undefined;
  if (code === sessionEnded) set({ status: "ended", code, reason, messages: [] });
  else set({ status: "waiting" });
  // A refused handshake looks like a lost network to a script, and this browser may have a new session already: so ask
  // before trying again.
  const me = await bff.session().catch(() => undefined);
  if (socket) return; // a login was faster
  if (me && !me.authenticated) set({ status: "ended", reason: state.reason ?? me.reason });
  if (state.status === "ended" && !me?.authenticated) return;
  // Half of the wait is random, so that a restarted server doesn't meet everybody at once.
  const wait = Math.min(longestWait, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
  failures += 1;
  timer = setTimeout(connect, wait);
  set({ status: "waiting", retryAt: Date.now() + wait });
}

// retry doesn't wait any longer.
export function retry() {
  if (timer) connect();
}

const subscribe = (listener) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

// useFeed returns the feed's state, and opens it once somebody is logged in.
export function useFeed(loggedIn) {
  useEffect(() => {
    if (loggedIn) start();
  }, [loggedIn]);
  return useSyncExternalStore(subscribe, () => state);
}

// A hot update of this file makes a new feed.
import.meta.hot?.dispose(() => {
  clearTimeout(timer);
  if (socket) socket.onclose = undefined;
  socket?.close();
});
