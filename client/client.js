// sessiongate in the browser. README.md tells how it works.
const EXPIRING = 60; // seconds before the end
const POLL = 30;
const LANDING = "#sessiongate-login"; // of popups

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const aborted = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
const failure = (code, status, message, cause) => (
  Object.assign(new Error(message ?? code, { cause }), { name: "BffError", code, status }));

// A state is {me, at}: what session said, asked at that time.
const left = ({ me }) => (me.authenticated ? Math.min(me.session.expires_in, me.session.idle_expires_in) : Infinity);

// Only so many seconds lie between two answers.
const alike = (a, b, seconds) => a === b || a && b && typeof a === "object"
  && Object.keys({ ...a, ...b }).every((key) => (key.endsWith("expires_in")
    ? Math.abs(Math.max(a[key] - seconds, 0) - Math.max(b[key], 0)) < 2 : alike(a[key], b[key], seconds)));
const same = (a, b) => a && left(a) <= EXPIRING === left(b) <= EXPIRING && alike(a.me, b.me, (b.at - a.at) / 1000);

export function createBff({ base = "/bff" } = {}) {
  const name = "sessiongate:" + base;
  const subscribers = new Set();
  const alone = !(globalThis.navigator?.locks && globalThis.EventSource && globalThis.BroadcastChannel);
  let state, asking, entering, channel, timer, turn, stream, heard, storage;
  let leading = alone;
  let backOff = POLL, retryAt;

  async function call(input, { login = "navigate", ...init } = {}) {
    const request = new Request(input, init);
    if (new URL(request.url).origin !== location.origin) return [await fetch(request)];
    request.headers.set("X-CSRF", "1");
    const once = init.body instanceof ReadableStream;
    for (let waits = 0, late = 0, logins = 0; ;) {
      const sent = Date.now();
      const response = await fetch(once ? request : request.clone());
      const answer = [response, sent];
      if (response.headers.get("X-Sessiongate") !== "1") return answer;
      if (response.status === 503 && !once) {
        const seconds = Number(response.headers.get("Retry-After")) || 1;
        if (waits++ === 3 || seconds > 60) return answer;
        await Promise.race([pause(seconds), aborted(request.signal)]);
        continue;
      }
      if (response.status !== 401) return answer;
      // Perhaps somebody logged in meanwhile.
      if (late++ || !state?.me.authenticated || state.at <= sent) {
        const { reason = "none" } = await response.clone().json().catch(() => ({}));
        ended(reason, sent);
        if (login === "none" || logins++) return answer;
        if (!await Promise.race([enter(login === "popup"), aborted(request.signal)])) return answer;
      }
      if (once) throw failure("not_replayable", 401);
    }
  }

  async function ask(path, init, delay = 1) {
    let response, sent;
    try {
      [response, sent] = await call(base + path, { ...init, login: "none" });
    } catch (cause) {
      if (delay > 4) throw failure("network", 0, cause.message, cause);
      await pause(delay);
      return ask(path, init, delay * 2);
    }
    const body = await response.json().catch(() => {});
    if (response.ok && body) return [body, sent];
    throw failure(body?.code ?? "unexpected_answer", response.status, body?.title);
  }

  function read() {
    const mine = asking = ask("/session").then(([me, at]) => {
      learn(me, at);
      return me;
    }).finally(() => {
      if (asking === mine) asking = undefined;
    });
    return mine;
  }

  const refresh = () => read().catch(() => schedule(POLL));

  function learn(me, at, told) {
    if (at < state?.at && state.at <= Date.now()) return; // overtaken, if the clock is right
    // Without the cookie the gateway knows no reason.
    if (me.reason === "none" && state && !state.me.authenticated) me = state.me;
    const next = { me, at };
    const news = !told && !same(state, next);
    state = next;
    if (news) connect()?.postMessage(state);
    subscribers.forEach(tell);
    listen();
    schedule();
  }

  const ended = (reason, at) => learn({ authenticated: false, reason, login_url: base + "/login" }, at);

  function tell(subscriber) {
    if (same(subscriber.told, state)) return;
    const { me } = subscriber.told = state;
    queueMicrotask(() => subscribers.has(subscriber) && subscriber.fn(me));
  }

  function connect() {
    if (!channel && globalThis.BroadcastChannel) {
      channel = new BroadcastChannel(name);
      channel.onmessage = ({ data }) => learn(data.me, data.at, true);
    }
    return channel;
  }

  function due() {
    const rest = state ? left(state) - (Date.now() - state.at) / 1000 : Infinity;
    if (document.hidden) return Math.max(rest, 0) + 5;
    const poll = alone || leading && !stream && rest < Infinity ? POLL : Infinity;
    return Math.min(poll, rest > EXPIRING + 1 ? rest - EXPIRING : 5);
  }

  // schedule: near the end, and where no stream tells.
  function schedule(seconds) {
    clearTimeout(timer);
    if (subscribers.size) timer = setTimeout(refresh, Math.min(seconds ?? due(), 1e6) * 1000);
  }

  // Who has the lock holds the event stream for all tabs.
  function lead(steal) {
    turn?.abort();
    const { signal } = turn = new AbortController();
    navigator.locks.request(name, steal ? { steal } : { signal }, () => new Promise((resolve) => {
      if (signal.aborted) return resolve();
      signal.addEventListener("abort", resolve);
      leading = true;
      listen();
    })).catch(() => {}).finally(() => {
      if (signal.aborted || !leading) return;
      leading = false; // stolen
      listen();
      lead();
    });
  }

  function listen() {
    const session = leading && !alone && state?.me.authenticated && state.me.logout_url;
    if (heard === session && (stream || !(Date.now() > retryAt))) return;
    heard = session;
    stream?.close();
    stream = undefined;
    if (!session) return;
    stream = new EventSource(base + "/events");
    stream.onopen = () => {
      backOff = POLL;
      refresh(); // what happened before
    };
    stream.addEventListener("session.expiring", refresh);
    stream.addEventListener("session.refreshed", refresh);
    stream.addEventListener("session.ended", ({ data }) => {
      const { reason } = JSON.parse(data);
      stream?.close();
      if (reason === "replaced") setTimeout(refresh, 1000); // a login: its cookie is on the way
      else ended(reason, Date.now());
    });
    stream.onerror = () => {
      if (stream?.readyState !== 2) return; // connects again by itself
      stream = undefined;
      retryAt = Date.now() + backOff * 1000;
      backOff = Math.min(backOff * 2, 300);
      refresh();
    };
  }

  function start() {
    connect();
    if (!leading) lead(!document.hidden);
    look();
  }

  function look() {
    if (!state || Date.now() - state.at > 5000) return asking ?? refresh();
    subscribers.forEach(tell);
    schedule();
  }

  function stop() {
    clearTimeout(timer);
    turn?.abort();
    channel = channel?.close();
    leading = alone;
    listen();
  }

  // One login is for all calls. False: nobody logged in.
  function one(begin) {
    const mine = entering = begin().finally(() => {
      if (entering === mine) entering = undefined;
    });
    return mine;
  }

  const enter = (popup) => entering ?? one(async () => {
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      if ((await read()).authenticated) return true;
    }
    return Date.now() - cameBack > 30_000 && go({ popup });
  });

  async function go({ returnUrl = here(), popup, params } = {}) {
    const address = (to) => `${base}/login?${new URLSearchParams({ ...params, returnUrl: to })}`;
    const done = popup ? await inPopup(address(returnUrl.split("#")[0] + LANDING)) : undefined;
    if (done !== undefined) return done;
    try {
      storage.setItem(name, "1");
    } catch {} // full
    return leave(address(returnUrl));
  }

  function here() {
    const { pathname, search, hash } = location;
    const path = (pathname + search + hash).replaceAll("\\", "%5C");
    return path.length > 1024 ? pathname : path;
  }

  // Who is still here later chose to stay, or came back.
  async function leave(url) {
    location.assign(url);
    await Promise.race([pause(POLL), new Promise((resolve) => addEventListener("pageshow", (e) => e.persisted && resolve()))]);
    storage?.removeItem(name);
    return (await read()).authenticated;
  }

  async function inPopup(url) {
    const before = state?.me.logout_url;
    const popup = open(url, name, "popup,width=500,height=700");
    if (!popup) return; // blocked
    connect();
    for (let ticks = 1, closed = 0; closed < 300; ticks++) {
      await pause(0.25);
      const landed = isBack(popup);
      if (!landed && ticks % 4) continue;
      if (landed) popup.close();
      // So it looks, too, when the provider cuts the tie.
      else if (popup.closed) closed += document.hasFocus() ? 100 : 1;
      const me = await read().catch(() => ({}));
      if (me.authenticated && me.logout_url !== before) {
        popup.close();
        cameBack = Date.now();
        return true;
      }
      if (landed) break;
    }
    return false;
  }

  const isBack = (popup) => {
    try {
      return popup.location.origin === location.origin && !popup.location.pathname.startsWith(base + "/");
    } catch {} // at the provider
  };

  try {
    storage = sessionStorage;
  } catch {} // forbidden
  let cameBack = storage?.getItem(name) ? Date.now() : 0;
  storage?.removeItem(name);

  if (globalThis.document) {
    const awake = () => subscribers.size && (document.hidden ? schedule() : start());
    document.addEventListener("visibilitychange", awake);
    addEventListener("pageshow", awake);
    addEventListener("pagehide", stop);
    if (location.hash === LANDING) {
      history.replaceState(history.state, "", location.pathname + location.search);
      read().catch(() => {}).finally(close);
    }
  }

  return {
    session: () => asking ?? read(),
    fetch: async (input, init) => (await call(input, init))[0],
    login: (options) => one(() => go(options)),
    async logout({ returnUrl = "" } = {}) {
      const [{ redirect_url }, at] = await ask("/logout?" + new URLSearchParams({ returnUrl }), { method: "POST" });
      ended("logout", at);
      await one(() => leave(redirect_url));
    },
    async stay() {
      await ask("/user").catch(() => {});
      return read();
    },
    onSession(fn) {
      const subscriber = { fn };
      subscribers.add(subscriber);
      if (subscribers.size === 1) start();
      else look();
      return () => subscribers.delete(subscriber) && !subscribers.size && stop();
    },
  };
}

// In a bundle there is no knowing.
const { origin, pathname } = new URL(import.meta.url);
const [, base] = origin === globalThis.location?.origin && /^((?!.*node_modules).*)\/client\.js$/.exec(pathname) || [];
export const bff = createBff({ base });
