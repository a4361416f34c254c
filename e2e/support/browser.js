// Debian's Chromium, driven by Playwright, and a record of everything it received.
import { chromium } from 'playwright-core';
import { within } from './wait.js';

const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';

// launch starts a browser with a new, empty profile. Without the flags it asks its maker's servers for this and that.
export function launch() {
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
      // Names that are no localhost, to which a browser takes plain HTTP for safe.
      '--host-resolver-rules=MAP *.test 127.0.0.1',
    ],
  });
}

// Visitor is one person's browser: a cookie jar, tabs, and what they received.
export class Visitor {
  // received holds {url, status, headers: [{name, value}], body} of every response.
  received = [];

  frames = []; // WebSocket messages

  #pending = new Set();

  static async arrive(browser) {
    const visitor = new Visitor();
    visitor.context = await browser.newContext({ ignoreHTTPSErrors: true });
    visitor.context.setDefaultTimeout(15_000);
    visitor.context.on('response', (response) => visitor.#keep(response));
    visitor.context.on('page', (page) => {
      page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => visitor.frames.push(String(payload))));
    });
    return visitor;
  }

  open() { return this.context.newPage(); }

  // cookies are those that the browser would send to the app.
  cookies(origin) { return this.context.cookies(origin); }

  // header is the Cookie header it would send, to be replayed without the browser.
  async header(origin) {
    const cookies = await this.cookies(origin);
    return cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
  }

  // settled waits until every response has been kept, and returns them.
  async settled() {
    await Promise.all(this.#pending);
    return this.received;
  }

  leave() { return this.context.close(); }

  #keep(response) {
    const kept = this.#read(response).then((entry) => this.received.push(entry));
    this.#pending.add(kept);
    kept.finally(() => this.#pending.delete(kept));
  }

  async #read(response) {
    const entry = { url: response.url(), status: response.status(), headers: [], body: '' };
    // A page that was left takes its answers with it: what is gone can't be read, and the tap on the wire has it.
    try {
      entry.headers = await within(10_000, 'headers', response.headersArray());
      const stream = entry.headers.some(({ name, value }) => name.toLowerCase() === 'content-type' && value.startsWith('text/event-stream'));
      if (stream) return entry; // it may never end
      entry.body = (await within(10_000, 'body', response.body())).toString('latin1');
    } catch { /* see above */ }
    return entry;
  }
}

// hoard is everything that a script of the page can reach: cookies, storage, the document, performance entries, its history.
export function hoard(page) {
  return page.evaluate(async () => {
    const databases = await indexedDB.databases();
    const caches_ = self.caches ? await caches.keys() : [];
    return JSON.stringify({
      cookie: document.cookie,
      local: { ...localStorage },
      session: { ...sessionStorage },
      databases,
      caches: caches_,
      document: document.documentElement.outerHTML,
      location: location.href,
      referrer: document.referrer,
      name: window.name,
      history: history.state,
      performance: performance.getEntries().map((entry) => entry.toJSON()),
    });
  });
}
