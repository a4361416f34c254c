// A shop whose page is written with the helper that the gateway serves, under a policy that allows nothing but its own files.
import { createServer } from 'node:http';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { Visitor, launch } from './browser.js';
import { Gateway } from './gateway.js';
import { startProvider } from './provider.js';
import { ask, freePort } from './wire.js';
import { close, until } from './wait.js';

const policy = "default-src 'self'; require-trusted-types-for 'script'";

// The page shows who is logged in, as it is told. What it was told and what the policy forbade are there for the tests.
const app = `
import { bff } from '/bff/client.js';
const forbidden = [];
addEventListener('securitypolicyviolation', ({ violatedDirective }) => forbidden.push(violatedDirective));
const told = [];
const who = document.querySelector('#who');
bff.onSession((me) => {
  told.push({ at: Date.now(), me });
  who.textContent = me.authenticated ? me.user.name : me.reason;
});
Object.assign(window, { bff, told, forbidden });
const order = document.querySelector('#order');
order.onclick = async () => {
  const form = new FormData();
  form.set('file', new Blob(['x'.repeat(300000)]), 'large.txt');
  window.answers = Promise.all([
    ...[1, 2, 3, 4].map((n) => bff.fetch('/api/orders', { method: 'POST', body: 'order ' + n, login: 'popup' })),
    bff.fetch(new Request('/api/orders', { method: 'POST', body: form }), { login: 'popup' }),
  ].map(async (call) => {
    const response = await call;
    return { status: response.status, ...await response.json() };
  }));
};
document.querySelector('#login').onclick = () => { window.login = bff.login({ popup: true }); };
document.body.dataset.ready = 'true';
`;

const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>a shop</title><link rel="icon" href="/spa/icon.svg">
<script type="module" src="/spa/app.js"></script>
<p id="who">…</p><button id="order">Order</button><button id="login">Log in</button></html>`;

// startUpstream serves the page and takes orders, whose bodies it keeps.
async function startUpstream() {
  const orders = [];
  const server = createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    if (req.url.startsWith('/api/')) {
      if (req.method === 'POST') orders.push(body);
      res.writeHead(200, { 'content-type': 'application/json' });
      return res.end(JSON.stringify({ method: req.method, url: req.url, length: body.length, bearer: Boolean(req.headers.authorization) }));
    }
    const [type, content] = {
      '/spa/app.js': ['text/javascript', app],
      '/spa/icon.svg': ['image/svg+xml', '<svg xmlns="http://www.w3.org/2000/svg"/>'],
    }[req.url] ?? ['text/html; charset=utf-8', page];
    res.writeHead(200, { 'content-type': type, 'content-security-policy': policy, 'cache-control': 'no-cache' });
    return res.end(content);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, orders, stop: () => close(server) };
}

// startGate stands between the gateway and the provider's token endpoint, which can so be out of order.
async function startGate(issuer) {
  const gate = { down: false, calls: 0 };
  const server = createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    if (req.url !== '/token') {
      const metadata = (await ask(`${issuer}/.well-known/openid-configuration`)).json();
      res.writeHead(200, { 'content-type': 'application/json' });
      return res.end(JSON.stringify({ ...metadata, token_endpoint: `${gate.url}/token` }));
    }
    gate.calls += 1;
    if (gate.down) return res.writeHead(503, { 'retry-after': '1' }).end();
    const { host, connection, ...headers } = req.headers;
    const answer = await ask(`${issuer}/token`, { method: 'POST', headers, body: Buffer.concat(chunks) });
    res.writeHead(answer.status, { 'content-type': answer.headers['content-type'] });
    return res.end(answer.body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(gate, { url: `http://127.0.0.1:${server.address().port}`, stop: () => close(server) });
}

export class Shop {
  #started = [];

  // start brings it up. Options: accessTTL (seconds), session (settings).
  static async start(options = {}) {
    const shop = new Shop();
    try {
      await shop.#build(options);
    } catch (err) {
      await shop.stop();
      throw err;
    }
    return shop;
  }

  async #build({ accessTTL = 600, session = {} }) {
    const port = await freePort();
    this.origin = `http://localhost:${port}`;
    this.provider = await this.#keep(startProvider(this.origin, { accessTTL }));
    this.gate = await this.#keep(startGate(this.provider.issuer));
    this.upstream = await this.#keep(startUpstream());
    this.gateway = await this.#keep(Gateway.start(() => ({
      listen: `127.0.0.1:${port}`,
      session,
      limits: { login_per_minute: 0 },
      apps: [{
        origin: this.origin,
        oidc: {
          issuer: this.provider.issuer,
          discovery_url: `${this.gate.url}/metadata`,
          client_id: this.provider.client.id,
          client_secret: this.provider.client.secret,
        },
        routes: [{ path: '/api/', upstream: this.upstream.url }, { path: '/spa/', upstream: this.upstream.url, auth: 'none' }],
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

  async stop() {
    const faults = [];
    for (const thing of this.#started.reverse()) await thing.stop().catch((err) => faults.push(err));
    this.#started = [];
    if (faults.length) throw new AggregateError(faults, faults.map(String).join('\n'));
  }

  // visit gives run a new visitor, who leaves afterwards.
  async visit(run) {
    const visitor = await Visitor.arrive(this.browser);
    try {
      await run(visitor);
    } finally {
      await visitor.leave();
    }
  }

  // show opens a tab there and waits until it was told who is logged in.
  async show(visitor, path = '/spa/home') {
    const tab = await visitor.open();
    await tab.goto(this.origin + path);
    await this.told(tab);
    return tab;
  }

  told(tab) { return tab.waitForFunction(() => window.told?.length > 0); }

  // fillIn logs in at the provider's form, which that tab shows or will.
  async fillIn(tab, username = 'ada') {
    await tab.waitForURL((url) => url.href.startsWith(`${this.provider.issuer}/interaction/`));
    await tab.fill('[name=username]', username);
    await tab.fill('[name=password]', { ada: 'engine', grace: 'compiler' }[username]);
    await tab.click('#login');
  }

  // login opens a tab and logs in there.
  async login(visitor, username = 'ada', path = '/spa/home') {
    const tab = await this.show(visitor, path);
    await tab.evaluate(() => { bff.login(); });
    await this.fillIn(tab, username);
    await tab.waitForURL(this.origin + path);
    await this.told(tab);
    return tab;
  }

  // endElsewhere logs the visitor's session out without the browser.
  async endElsewhere(visitor) {
    const answer = await ask(`${this.origin}/bff/logout`, { method: 'POST', headers: { 'x-csrf': '1', cookie: await visitor.header(this.origin) } });
    if (answer.status !== 200) throw new Error(`logout: ${answer.status} ${answer.body}`);
    return Date.now();
  }

  // severing has the provider cut the tie between its pages and those that opened them, as some do, while run runs.
  async severing(run) {
    const channel = 'http.server.request.start';
    const answer = ({ request, response }) => {
      if (`http://${request.headers.host}` === this.provider.issuer) response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    };
    subscribe(channel, answer);
    try {
      await run();
    } finally {
      unsubscribe(channel, answer);
    }
  }

  // streams is how many event streams are open at the gateway.
  async streams() {
    const { body } = await ask(`${this.gateway.admin}/metrics`);
    const name = `sessiongate_streams_open{app="${this.origin}",kind="events"} `;
    return Number(body.split('\n').find((line) => line.startsWith(name)).slice(name.length));
  }

  oneStream() { return until('one event stream is open', async () => await this.streams() === 1); }

  // requests of a path that the gateway has answered.
  requests(path, method = 'GET') {
    return this.gateway.events('request').filter((entry) => entry.path === path && entry.method === method).length;
  }
}

// heard waits until a tab was told what find, a function of wanted in the page, finds in window.told. It returns when that was.
export async function heard(tab, find, wanted, timeout = 15_000) {
  const found = await tab.waitForFunction(find, wanted, { timeout });
  return (await found.jsonValue()).at;
}

export const reason = (wanted) => window.told.find(({ me }) => me.reason === wanted);
export const name = (wanted) => window.told.find(({ me }) => me.user?.name === wanted);

// who is what the tab's page shows.
export const who = (tab) => tab.textContent('#who');

// loaded is when the tab's page was loaded: another is another page.
export const loaded = (tab) => tab.evaluate(() => performance.timeOrigin);
