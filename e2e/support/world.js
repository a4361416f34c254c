// One world per test file: a provider, an upstream, the gateway between them, a browser in front, and somebody else's site.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { Visitor, launch } from './browser.js';
import { Gateway, certificate } from './gateway.js';
import { startProvider } from './provider.js';
import { startSite, startUpstream } from './upstream.js';
import { startTap } from './tap.js';
import { ask, freePort } from './wire.js';

const spa = fileURLToPath(new URL('../spa', import.meta.url));

export class World {
  #started = [];

  // start brings it up. Options: tls (an https origin), tap (keep every byte that the gateway sends to the browser),
  // accessTTL (seconds), logout (of the app's oidc settings), routes (to be put before the usual ones), session (settings),
  // bySubject (see startProvider), host (of the app), cors (origins),
  // limits.
  static async start(options = {}) {
    const world = new World();
    try {
      await world.#build(options);
    } catch (err) {
      await world.stop();
      throw err;
    }
    return world;
  }

  async #build({ tls = false, tap = false, accessTTL = 4, logout = {}, routes = [], session = {}, bySubject = false, host = 'localhost', cors = [], limits = {} }) {
    const port = await freePort();
    const listen = tap ? await freePort() : port;
    this.origin = `${tls ? 'https' : 'http'}://${host}:${port}`;
    this.provider = await this.#keep(startProvider(this.origin, { accessTTL, bySubject }));
    this.upstream = await this.#keep(startUpstream(this.provider.judge));
    this.site = await this.#keep(startSite());
    if (tap) this.tap = await this.#keep(startTap(port, listen));
    this.gateway = await this.#keep(Gateway.start((dir) => ({
      listen: `127.0.0.1:${listen}`,
      ...(tls && { tls: certificate(dir) }),
      session,
      limits,
      apps: [{
        origin: this.origin,
        cors: { origins: cors },
        oidc: {
          issuer: this.provider.issuer,
          client_id: this.provider.client.id,
          client_secret: this.provider.client.secret,
          logout,
        },
        routes: [
          ...routes,
          { path: '/api/', upstream: this.upstream.url },
          { path: '/app/', upstream: this.upstream.url, kind: 'page' },
          { path: '/', static: { dir: spa, fallback: 'index.html' }, auth: 'none' },
        ],
      }],
    })));
    this.browser = await launch();
    this.#started.push({ stop: () => this.browser.close() });
  }

  async #keep(starting) {
    const started = await starting;
    this.#started.push(started);
    return started;
  }

  // stop ends everything, last started first, and fails if the gateway did not end well.
  async stop() {
    const faults = [];
    for (const thing of this.#started.reverse()) {
      await thing.stop().catch((err) => faults.push(err));
    }
    this.#started = [];
    if (this.provider?.faults.length) faults.push(...this.provider.faults);
    if (faults.length) throw new AggregateError(faults, faults.map(String).join('\n'));
  }

  arrive() { return Visitor.arrive(this.browser); }

  // fillIn waits for the provider's form in that tab, and logs in there.
  async fillIn(page, username = 'ada', password = { ada: 'engine', grace: 'compiler' }[username]) {
    await page.waitForURL((url) => url.href.startsWith(`${this.provider.issuer}/interaction/`));
    await page.fill('[name=username]', username);
    await page.fill('[name=password]', password);
    await page.click('#login');
  }

  // login logs a new visitor's tab in, by a deep link, and returns the tab.
  async login(visitor, username = 'ada') {
    const page = await visitor.open();
    await page.goto(`${this.origin}/app/start`);
    await this.fillIn(page, username);
    await this.arrived(page, '/app/start');
    return page;
  }

  // arrived waits until a tab shows the page of that path (with query and fragment), beyond any hop page.
  async arrived(page, path) {
    await page.waitForURL(this.origin + path);
    await page.waitForSelector('#page');
    assert.equal(await page.evaluate(() => location.href), this.origin + path);
  }

  // api calls the API as the gateway's SPA does, from that tab.
  api(page, path = '/api/echo') {
    return page.evaluate(async (url) => {
      const answer = await fetch(url, { headers: { 'X-CSRF': '1' } });
      return { status: answer.status, ...await answer.json() };
    }, path);
  }

  // session asks the gateway from that tab.
  session(page) { return this.api(page, '/bff/session'); }

  // replay asks the API with a Cookie header, without a browser.
  async replay(cookie, path = '/api/echo') {
    const answer = await ask(this.origin + path, { headers: { cookie, 'x-csrf': '1' } });
    return { status: answer.status, ...answer.json() };
  }
}
