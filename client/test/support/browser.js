// As much of a browser as the helper sees: tabs with a global object each, and what they share.
import { readFileSync } from 'node:fs';
import vm from 'node:vm';
import { Clock, settle } from './clock.js';
import { Gateway } from './gateway.js';

const source = readFileSync(new URL('../../client.js', import.meta.url), 'utf8');

// classic is the module as a script, which can be run in many global objects.
const classic = (url) => `${source.replaceAll(/^export /gm, '').replaceAll('import.meta.url', JSON.stringify(url))}\n;({ bff, createBff });`;

export class Browser {
  tabs = new Set();

  locks = new Locks();

  channels = new Set();

  posted = 0; // messages

  constructor() {
    this.clock = new Clock();
    this.gateway = new Gateway(this.clock);
  }

  // open opens a tab. Options: module (where the helper came from), hidden, without (names of globals it lacks),
  // storage (its sessionStorage).
  open(url = 'https://app.test/orders?page=2#row-7', options = {}) {
    const tab = new Tab(this, url, options);
    this.tabs.add(tab);
    return tab;
  }

  pass(seconds) { return this.clock.pass(seconds); }

  settle() { return settle(); }
}

class Tab {
  went = []; // addresses that it was told to navigate to

  popups = [];

  blocksPopups = false;

  focused = true;

  faults = []; // uncaught

  #sources = new Set();

  constructor(browser, url, { module = 'https://app.test/bff/client.js', hidden = false, without = [], storage = new Map() }) {
    this.browser = browser;
    this.url = new URL(url);
    this.hidden = hidden;
    this.storage = storage;
    this.window = new EventTarget();
    this.document = new EventTarget();
    const globals = { ...this.#globals() };
    for (const name of without) delete globals[name];
    if (without.includes('locks')) globals.navigator = {};
    vm.createContext(globals);
    const { bff, createBff } = vm.runInContext(classic(module), globals);
    Object.assign(this, { bff, createBff });
  }

  #globals() {
    const tab = this;
    const { browser } = this;
    const { clock, gateway, locks, channels } = browser;
    const { document, window, storage } = this;
    Object.defineProperty(document, 'hidden', { get: () => this.hidden });
    document.hasFocus = () => this.focused;
    return {
      document,
      addEventListener: window.addEventListener.bind(window),
      location: {
        get href() { return tab.url.href; },
        get origin() { return tab.url.origin; },
        get pathname() { return tab.url.pathname; },
        get search() { return tab.url.search; },
        get hash() { return tab.url.hash; },
        assign(url) { tab.went.push(String(url)); },
      },
      history: { state: 'of the app', replaceState: (state, title, url) => { this.url = new URL(url, this.url); this.state = state; } },
      sessionStorage: {
        getItem: (key) => storage.get(key) ?? null, setItem: (key, value) => storage.set(key, value), removeItem: (key) => storage.delete(key),
      },
      navigator: { locks: { request: (...args) => locks.request(tab, ...args) } },
      setTimeout: clock.setTimeout.bind(clock),
      clearTimeout: clock.clearTimeout.bind(clock),
      Date: clock.Date,
      queueMicrotask: (fn) => queueMicrotask(() => {
        try {
          fn();
        } catch (err) {
          tab.faults.push(err);
        }
      }),
      open: (url, name, features) => tab.#popup(url, name, features),
      close: () => { tab.closed = true; },
      fetch: (request) => tab.#fetch(request),
      // Relative addresses are the page's.
      Request: class extends Request {
        constructor(input, init) { super(typeof input === 'string' ? new URL(input, tab.url).href : input, init); }
      },
      BroadcastChannel: class {
        constructor(name) {
          Object.assign(this, { name, tab });
          channels.add(this);
        }

        postMessage(data) {
          browser.posted += 1;
          for (const other of channels) if (other !== this && other.name === this.name) other.hear(structuredClone(data));
        }

        hear(data) { queueMicrotask(() => channels.has(this) && this.onmessage?.({ data })); }

        close() { channels.delete(this); }
      },
      EventSource: class extends Source {
        constructor(url) {
          super(new URL(url, tab.url), gateway, tab);
          tab.#sources.add(this);
        }
      },
      URL, URLSearchParams, Response, Headers, FormData, Blob, AbortController, ReadableStream,
    };
  }

  async #fetch(request) {
    const { signal } = request;
    signal.throwIfAborted();
    const aborted = new Promise((_, reject) => { signal.addEventListener('abort', () => reject(signal.reason)); });
    aborted.catch(() => {});
    return Promise.race([this.browser.gateway.answer(request, this), aborted]);
  }

  #popup(url, name, features) {
    if (this.blocksPopups) return null;
    const popup = new Popup(url, name, features);
    this.popups.push(popup);
    return popup;
  }

  // follow gathers what onSession tells.
  follow() {
    const told = [];
    const stop = this.bff.onSession((me) => told.push(me));
    return { told, stop, get last() { return told.at(-1); } };
  }

  show() { this.#turn(false); }

  hide() { this.#turn(true); }

  #turn(hidden) {
    this.hidden = hidden;
    this.document.dispatchEvent(new Event('visibilitychange'));
  }

  leave() { this.window.dispatchEvent(new Event('pagehide')); }

  comeBack() { this.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true })); }

  // shut closes the tab without a word, as a crash does.
  shut() {
    const { browser } = this;
    browser.tabs.delete(this);
    for (const source of this.#sources) source.close();
    for (const channel of browser.channels) if (channel.tab === this) browser.channels.delete(channel);
    browser.locks.drop(this);
  }

  // streams are its event streams that are open.
  get streams() { return [...this.browser.gateway.streams].filter((source) => source.tab === this).length; }
}

// Popup is a window that somebody logs in in.
class Popup {
  closed = false;

  severed = false;

  #at = 'elsewhere';

  constructor(url, name, features) { Object.assign(this, { url, name, features }); }

  get location() {
    if (this.#at === 'elsewhere') throw new Error('SecurityError');
    return new URL(this.#at);
  }

  // goTo shows it an address; "elsewhere" is the provider's.
  goTo(url) { this.#at = url; }

  // sever is what a provider's Cross-Origin-Opener-Policy does.
  sever() { this.severed = this.closed = true; }

  close() { this.closed = true; }
}

class Source extends EventTarget {
  readyState = 0;

  constructor(url, gateway, tab) {
    super();
    Object.assign(this, { url, gateway, tab });
    queueMicrotask(() => this.connect());
  }

  connect() {
    if (this.readyState === 2) return;
    const { gateway } = this;
    gateway.opened += 1;
    const status = gateway.session().authenticated ? gateway.events() : 401;
    if (status !== 200) {
      this.readyState = 2;
      this.onerror?.();
      return;
    }
    this.readyState = 1;
    gateway.streams.add(this);
    this.onopen?.();
  }

  say(type, data) {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data) }));
    if (type === 'session.ended') this.gateway.streams.delete(this);
  }

  // drop is a network that fails: the browser connects again by itself.
  drop() {
    this.gateway.streams.delete(this);
    this.readyState = 0;
    this.onerror?.();
  }

  close() {
    this.readyState = 2;
    this.gateway.streams.delete(this);
  }
}

// Locks is the Web Locks API: exclusive locks, with steal and signal.
class Locks {
  #held = new Map(); // name -> {tab, reject}

  #queue = [];

  request(tab, name, { steal = false, signal }, callback) {
    return new Promise((resolve, reject) => {
      const entry = { tab, name, callback, resolve, reject };
      signal?.addEventListener('abort', () => {
        const i = this.#queue.indexOf(entry);
        if (i < 0) return;
        this.#queue.splice(i, 1);
        reject(signal.reason);
      });
      queueMicrotask(() => {
        if (signal?.aborted) return reject(signal.reason);
        if (steal) {
          const holder = this.#held.get(name);
          this.#held.delete(name);
          holder?.reject(new DOMException('stolen', 'AbortError'));
          this.#queue.unshift(entry);
        } else {
          this.#queue.push(entry);
        }
        this.#grant();
      });
    });
  }

  #grant() {
    for (const entry of [...this.#queue]) {
      if (this.#held.has(entry.name)) continue;
      this.#queue.splice(this.#queue.indexOf(entry), 1);
      this.#held.set(entry.name, entry);
      Promise.resolve(entry.callback()).then(entry.resolve, entry.reject).finally(() => this.#release(entry));
    }
  }

  #release(entry) {
    if (this.#held.get(entry.name) !== entry) return;
    this.#held.delete(entry.name);
    this.#grant();
  }

  // drop is the end of a tab.
  drop(tab) {
    this.#queue = this.#queue.filter((entry) => entry.tab !== tab);
    for (const entry of [...this.#held.values()]) if (entry.tab === tab) this.#release(entry);
  }

  get held() { return this.#held.size; }
}
