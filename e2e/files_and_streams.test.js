import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { ask } from './support/wire.js';

let world;
let visitor;
let page;
before(async () => {
  world = await World.start();
  visitor = await world.arrive();
  page = await world.login(visitor);
});
after(() => world?.stop());

test('the app\'s files come with a content security policy, and are cached as their names allow', async () => {
  const navigation = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', 'sec-fetch-site': 'none' };
  const index = await ask(`${world.origin}/`, { headers: navigation });
  assert.equal(index.status, 200);
  assert.match(index.headers['content-security-policy'], /default-src 'self'|script-src 'self'/);
  assert.match(index.headers['content-security-policy'], /frame-ancestors 'none'/);
  assert.equal(index.headers['x-content-type-options'], 'nosniff');
  assert.match(index.headers['cache-control'], /no-cache/);

  const asset = await ask(`${world.origin}/assets/app-Ck3v9XbQ.js`);
  assert.equal(asset.status, 200);
  assert.match(asset.headers['content-type'], /javascript/);
  assert.match(asset.headers['cache-control'], /immutable/);
  const again = await ask(`${world.origin}/assets/app-Ck3v9XbQ.js`, { headers: { 'if-none-match': asset.headers.etag } });
  assert.equal(again.status, 304);

  const route = await ask(`${world.origin}/orders/7`, { headers: navigation });
  assert.equal(route.status, 200);
  assert.equal(route.body, index.body);
  assert.match(route.headers['cache-control'], /no-cache/);
  const missing = await ask(`${world.origin}/assets/missing-Ck3v9XbQ.js`, { headers: { 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'script' } });
  assert.equal(missing.status, 404, 'a missing asset is not the index page');
});

test('the policy holds in the browser: the app runs, a script written into its page does not', async () => {
  const app = await visitor.open();
  const violations = [];
  app.on('console', (message) => { if (message.type() === 'error') violations.push(message.text()); });
  await app.goto(`${world.origin}/orders/7`);
  await app.waitForSelector('body[data-ready]');
  assert.deepEqual(violations, []);
  await app.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'document.body.dataset.pwned = "true"';
    document.body.append(script);
  });
  assert.equal(await app.getAttribute('body', 'data-pwned'), null);
  assert.match(violations.join('\n'), /Content Security Policy/);
});

test('server-sent events arrive one by one, with a valid token upstream', async () => {
  const arrivals = await page.evaluate(() => new Promise((resolve, reject) => {
    const got = [];
    const events = new EventSource('/api/stream');
    events.onmessage = ({ data }) => {
      got.push({ ...JSON.parse(data), got: Date.now() });
      if (got.length === 3) { events.close(); resolve(got); }
    };
    events.onerror = () => reject(new Error('the event stream broke'));
  }));
  assert.deepEqual(arrivals.map(({ n }) => n), [1, 2, 3]);
  for (const { n, sent, got } of arrivals) assert.ok(got - sent < 800, `event ${n} was ${got - sent} ms late: buffered?`);
  assert.equal(world.upstream.seen.findLast(({ url }) => url === '/api/stream').token, 'valid');
});

test('a WebSocket passes messages both ways, with a valid token upstream', async () => {
  const messages = await page.evaluate(() => new Promise((resolve, reject) => {
    const got = [];
    const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/api/socket`);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { socket.send('hällo'); socket.send(new Uint8Array(70_000)); };
    socket.onmessage = ({ data }) => {
      got.push(typeof data === 'string' ? data : data.byteLength);
      if (got.length === 3) { socket.close(); resolve(got); }
    };
    socket.onerror = () => reject(new Error('the WebSocket broke'));
  }));
  assert.deepEqual(messages, ['token valid', 'hällo', 70_000]);
});

// breakIn tries from a page of another origin what scripts can try.
const breakIn = (attacker) => attacker.evaluate((origin) => Promise.all([
  new Promise((resolve) => {
    const socket = new WebSocket(`${origin.replace('http', 'ws')}/api/socket`);
    socket.onopen = () => resolve('WebSocket open');
    socket.onerror = () => resolve('refused');
  }),
  new Promise((resolve) => {
    const events = new EventSource(`${origin}/api/stream`, { withCredentials: true });
    events.onopen = () => resolve('event stream open');
    events.onerror = () => { events.close(); resolve('refused'); };
  }),
  ...[
    ['/api/echo', { headers: { 'X-CSRF': '1' } }],
    ['/api/echo', { mode: 'no-cors' }],
    ['/api/echo', { mode: 'no-cors', method: 'POST', body: 'x' }],
    ['/app/page', { mode: 'no-cors', method: 'POST', body: 'x' }],
    ['/bff/session', { headers: { 'X-CSRF': '1' } }],
    ['/bff/logout', { mode: 'no-cors', method: 'POST' }],
  ].map(([path, init]) => fetch(origin + path, { credentials: 'include', ...init })
    .then(() => `${path} answered`, () => 'refused')),
]), world.origin);

// Cookies know no ports: to http://localhost:1 the browser sends those of http://localhost:2, however strict they are.
for (const [name, host] of [['another site', '127.0.0.1'], ['a sibling origin, to whose requests the browser adds the cookie', 'localhost']]) {
  test(`${name} reaches neither the API nor the session`, async () => {
    const before = world.upstream.seen.length;
    const attacker = await visitor.open();
    await attacker.goto(world.site.url.replace('127.0.0.1', host));
    assert.deepEqual(new Set(await breakIn(attacker)), new Set(['refused']));
    assert.equal(world.upstream.seen.length, before, 'the upstream was reached');
    assert.equal((await world.api(page)).token, 'valid', 'the session is over');
  });
}

test('a script of an upstream cannot become a service worker', async () => {
  world.upstream.pages.set('/app/worker.js', 'self.onfetch = () => {};');
  const tab = await visitor.open();
  await tab.goto(`${world.origin}/app/page`);
  const outcome = await tab.evaluate(async () => {
    const script = await fetch('/app/worker.js');
    const registered = await navigator.serviceWorker.register('/app/worker.js').then(() => 'registered', ({ name }) => name);
    return [script.status, script.headers.get('content-type'), registered, (await navigator.serviceWorker.getRegistrations()).length];
  });
  assert.deepEqual(outcome, [200, 'text/javascript', 'TypeError', 0]);
  await tab.close();
});

test('without a session the API answers 401 with a problem, and never redirects', async () => {
  const stranger = await ask(`${world.origin}/api/echo`, { headers: { 'x-csrf': '1', accept: 'text/html' } });
  assert.equal(stranger.status, 401);
  assert.equal(stranger.headers['content-type'], 'application/problem+json');
  assert.equal(stranger.headers['x-sessiongate'], '1');
  assert.equal(stranger.headers['set-cookie'], undefined);
  assert.equal(stranger.headers.location, undefined);
  assert.equal(stranger.json().code, 'session_required');
});
