// A sibling subdomain, a parent and a child of the app's host, the same host without TLS, and another site, all of which mean
// harm: what they can do to the app's cookies in Chromium, and what their requests cause.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer as createPlain } from 'node:http';
import { createServer as createSecure } from 'node:https';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { close, until } from './support/wait.js';
import { freePort } from './support/wire.js';
import { World } from './support/world.js';

const ours = '__Host-Http-session';

let world;
let visitor;
let page;
let places; // origins of the attacker
let partner; // a listed origin
const servers = [];
const attack = { html: '', cookies: [], seen: [] }; // what the attacker's servers answer with, and the Cookie headers they got

async function serve(create, options, port) {
  const server = create(options, (req, res) => {
    attack.seen.push(req.headers.cookie ?? '');
    res.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'set-cookie': attack.cookies });
    res.end(`<!doctype html><title>attack</title>${attack.html}`);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  servers.push(server);
}

before(async () => {
  const [secure, plain] = [await freePort(), await freePort()];
  partner = `https://partner.shop.test:${secure}`;
  places = {
    sibling: `https://evil.shop.test:${secure}`,
    parent: `https://shop.test:${secure}`,
    child: `https://evil.app.shop.test:${secure}`,
    'another site': `https://evil.test:${secure}`,
    'the same host without TLS': `http://app.shop.test:${plain}`,
    'a sibling without TLS': `http://evil.shop.test:${plain}`,
  };
  world = await World.start({
    tls: true, accessTTL: 600, host: 'app.shop.test', cors: [partner],
    routes: [{ path: '/down/', upstream: 'http://127.0.0.1:1' }],
  });
  const read = (name) => readFileSync(join(world.gateway.dir, name));
  await serve(createSecure, { cert: read('cert.pem'), key: read('key.pem') }, secure);
  await serve(createPlain, {}, plain);
  visitor = await world.arrive();
});
after(async () => {
  await Promise.all(servers.map(close));
  await world?.stop();
});

// visit opens the attacker's page at that origin, which sets these cookies by header, and then by script.
async function visit(origin, { cookies = [], html = '' } = {}) {
  Object.assign(attack, { cookies, html });
  const tab = await visitor.open();
  await tab.goto(origin);
  await tab.evaluate((lines) => { for (const line of lines) document.cookie = line; }, cookies);
  return tab;
}

// forgeries are lines that would set one of our cookies, if the browser took them. All but the last were tricks that worked
// in some browser or server; the last one is no trick, and shows that what is allowed does arrive.
function forgeries() {
  const names = [ours, `${ours}-logins`, `${ours}-flow-0123456789abcdef`, `${ours}-logout-state`, '__host-http-session', '__HOST-HTTP-SESSION'];
  const domains = ['', '; Domain=shop.test', '; Domain=.shop.test', '; Domain=app.shop.test', '; Domain=test'];
  const paths = ['; Path=/', '; Path=/api', '; Path=/bff/callback', ''];
  const lines = [];
  for (const domain of domains) {
    for (const name of names) {
      for (const path of paths) lines.push(`${name}=planted${domain}${path}; Secure`, `${name}=planted${domain}${path}`);
    }
    for (const line of [`=${ours}=planted`, `${ours}`, ` ${ours}=planted`, `\t${ours}=planted`, `= ${ours}=planted`, `=\t${ours}=planted`]) {
      lines.push(`${line}${domain}; Path=/; Secure`, `${line}${domain}; Path=/api; Secure`);
    }
  }
  return [...lines, 'innocent=arrives; Domain=shop.test; Path=/; Secure'];
}

// own are the cookies that the browser would send to a path of the app and that look like ours to any reader.
const own = async (path = '/') => (await visitor.cookies(world.origin + path))
  .filter(({ name, value }) => `${name}=${value}`.toLowerCase().includes('__host-http-session'));

// forwarded is the Cookie header that reaches the upstream.
async function forwarded() {
  const { status, token, headers } = await world.api(page);
  assert.deepEqual([status, token], [200, 'valid']);
  return headers.cookie ?? '';
}

test('SES-06 nobody plants a flow cookie or a session before the login', async () => {
  for (const origin of Object.values(places)) await (await visit(origin, { cookies: forgeries() })).close();
  assert.deepEqual(await own(), []);
  page = await world.login(visitor);
  assert.equal((await own()).filter(({ name }) => name === ours).length, 1);
  assert.match(await forwarded(), /^innocent=arrives$/);
});

for (const place of ['sibling', 'parent', 'child', 'another site', 'the same host without TLS', 'a sibling without TLS']) {
  test(`SES-04, SES-05 ${place} can neither plant, overwrite, delete nor read the session cookie`, async () => {
    const former = await own();
    attack.seen = [];
    const deletions = ['', '; Domain=shop.test', '; Domain=app.shop.test'].map((domain) => `${ours}=; Max-Age=0; Path=/${domain}; Secure`);
    const tab = await visit(places[place], { cookies: [...forgeries(), ...deletions] });
    assert.doesNotMatch(await tab.evaluate(() => document.cookie), /http-session/i);
    await tab.close();
    assert.doesNotMatch(attack.seen.join(), /http-session/i, 'the attacker was sent it');
    for (const path of ['/', '/api/echo', '/bff/callback']) {
      const now = await own(path);
      assert.deepEqual(now.map(({ name, value }) => [name, value]), former.map(({ name, value }) => [name, value]), path);
    }
    assert.equal(await forwarded(), 'innocent=arrives');
    assert.equal((await world.session(page)).authenticated, true);
  });
}

test('SES-06 a script of the app itself cannot plant one either', async () => {
  const former = await own('/api/echo');
  await page.evaluate((lines) => { for (const line of lines) document.cookie = line; }, forgeries());
  assert.deepEqual(await own('/api/echo'), former);
  assert.doesNotMatch(await forwarded(), /http-session/i);
});

// probes are what a page of another origin can send without its user's doing; each returns what its script learnt.
const probe = (tab) => tab.evaluate(async (origin) => {
  const element = (name, attributes) => new Promise((resolve) => {
    const it = Object.assign(document.createElement(name), attributes);
    it.onload = () => resolve(name === 'iframe' ? 'loaded, perhaps with an error page' : `${name} loaded`);
    it.onerror = () => resolve('nothing');
    document.body.append(it);
  });
  const call = (path, init) => fetch(origin + path, { credentials: 'include', ...init })
    .then((answer) => (answer.type === 'opaque' ? 'nothing' : `${path} ${answer.status}`), () => 'nothing');
  const results = [];
  for (const path of ['/api/x', '/app/x', '/bff/session', '/bff/logout', '/bff/login']) {
    results.push(call(path), call(path, { headers: { 'X-CSRF': '1' } }), call(path, { mode: 'no-cors' }),
      call(path, { method: 'POST', mode: 'no-cors', body: 'x' }), call(path, { method: 'DELETE' }), call(path, { method: 'PUT', body: '{}' }),
      element('img', { src: origin + path }), element('script', { src: origin + path }),
      element('link', { rel: 'stylesheet', href: origin + path }));
    element('iframe', { src: origin + path });
    element('video', { src: origin + path });
    element('link', { rel: 'prefetch', href: origin + path });
    navigator.sendBeacon(origin + path, 'x');
    const frame = Object.assign(document.createElement('iframe'), { name: `sink${path}` });
    const form = Object.assign(document.createElement('form'), { method: 'post', action: origin + path, target: frame.name });
    document.body.append(frame, form);
    form.submit();
    results.push(new Promise((resolve) => {
      const socket = new WebSocket(origin.replace('https', 'wss') + path);
      socket.onopen = () => resolve('WebSocket open');
      socket.onerror = () => resolve('nothing');
    }), new Promise((resolve) => {
      const events = new EventSource(origin + path, { withCredentials: true });
      events.onopen = () => resolve('event stream open');
      events.onerror = () => { events.close(); resolve('nothing'); };
    }));
  }
  return [...new Set(await Promise.all(results))];
}, world.origin);

// framed are the frames that have come to something.
const framed = (tab) => tab.frames().slice(1).filter((frame) => /^(https|chrome-error):/.test(frame.url()));

// onlyProblems checks that frames hold refusals: text for scripts, with nothing to click on.
async function onlyProblems(frames) {
  for (const frame of frames) {
    await frame.waitForLoadState();
    const text = await frame.evaluate(() => document.body.innerText);
    assert.match(text, /"status":40[135],/, frame.url());
  }
}

for (const place of ['sibling', 'another site']) {
  test(`CSRF-04, CSRF-05 requests that a page of ${place} makes cause nothing`, async () => {
    const before = world.upstream.seen.length;
    const logged = world.gateway.events('request').length;
    const tab = await visit(places[place], { html: '<body>' });
    assert.deepEqual(await probe(tab), ['nothing']);
    await until('all of it was answered', () => world.gateway.events('request').length >= logged + 60);
    await until('frames and forms are answered', () => framed(tab).length === tab.frames().length - 1);
    await onlyProblems(framed(tab));
    await tab.close();
    assert.deepEqual(world.upstream.seen.slice(before), [], 'the upstream was reached');
    const answers = world.gateway.events('request').slice(logged);
    assert.deepEqual(answers.filter(({ status }) => ![401, 403, 405].includes(status)), []);
    assert.equal((await world.session(page)).authenticated, true, 'the session is over');
  });
}

test('OP-02 nothing of the app or of ours can be framed, but refusals', async () => {
  for (const place of ['sibling', 'another site']) {
    const targets = ['/', '/bff/logout?sid=wrong', '/bff/callback?code=x', '/app/x'].map((path) => world.origin + path);
    const tab = await visit(places[place], { html: targets.map((src) => `<iframe src="${src}"></iframe>`).join('') });
    await until('all frames are there', () => framed(tab).length === targets.length);
    const [refused, ...rest] = framed(tab);
    assert.match(refused.url(), /^chrome-error:/);
    await onlyProblems(rest);
    await tab.close();
  }
});

// What a page of a listed origin learns of answers, ours among them (pain 16).
const learn = (tab, headers) => tab.evaluate(async ([origin, sent]) => {
  const learnt = {};
  for (const path of ['/api/echo', '/down/x', '/bff/session']) {
    learnt[path] = await fetch(origin + path, { credentials: 'include', headers: sent })
      .then(async (answer) => [answer.status, (await answer.json()).code ?? 'no problem'], () => 'nothing');
  }
  return learnt;
}, [world.origin, headers]);

test('pain 16 a listed origin reads errors of ours on routes, and nothing of /bff; an unlisted one reads nothing', async () => {
  const csrf = { 'X-CSRF': '1' };
  let tab = await visit(partner);
  assert.deepEqual(await learn(tab, csrf), { '/api/echo': [200, 'no problem'], '/down/x': [502, 'upstream_unreachable'], '/bff/session': 'nothing' });
  assert.deepEqual((await learn(tab, {}))['/api/echo'], [403, 'csrf_header_missing']);
  await tab.close();
  tab = await visit(places.sibling);
  assert.deepEqual(await learn(tab, csrf), { '/api/echo': 'nothing', '/down/x': 'nothing', '/bff/session': 'nothing' });
  await tab.close();

  const stranger = await world.arrive();
  try {
    Object.assign(attack, { cookies: [], html: '' });
    tab = await stranger.open();
    await tab.goto(partner);
    assert.deepEqual((await learn(tab, csrf))['/api/echo'], [401, 'session_required']);
  } finally {
    await stranger.leave();
  }
});

test('a flooded cookie jar costs the session at most, and a login brings it back', async () => {
  const flood = Array.from({ length: 400 }, (_, i) => `flood${i}=x; Domain=shop.test; Path=/; Secure`);
  await (await visit(places.sibling, { cookies: flood })).close();
  const left = (await own()).filter(({ name }) => name === ours);
  const { status, code } = await world.api(page);
  // Chromium keeps 180 for a site, and drops the ones that were used the longest time ago.
  if (left.length === 0) assert.deepEqual([status, code], [401, 'session_required']);
  else assert.equal(status, 200);
  await page.goto(`${world.origin}/app/back`);
  await world.arrived(page, '/app/back'); // the provider remembers
  assert.equal((await world.api(page)).token, 'valid');
});

test('SES-01 to SES-05, LO-02: every Set-Cookie that the browser was sent, deletions too, and an empty jar in the end (CVE-2025-55162)', async () => {
  for (const path of ['/bff/callback?code=x&state=y', '/bff/logout?sid=wrong', '/bff/login?returnUrl=//evil.example', '/bff/nothing']) {
    await page.goto(world.origin + path);
  }
  await page.goto(`${world.origin}/`);
  await page.click('#logout');
  await page.click('#confirm');
  await page.waitForURL(`${world.origin}/`);
  assert.deepEqual(await own(), []);

  const lines = (await visitor.settled()).filter(({ url }) => url.startsWith(world.origin))
    .flatMap(({ headers }) => headers).filter(({ name }) => name.toLowerCase() === 'set-cookie').flatMap(({ value }) => value.split('\n'));
  const names = new Set();
  for (const line of lines) {
    const [pair, ...attributes] = line.split('; ');
    const name = pair.split('=')[0];
    names.add(name.replace(/-flow-.*/, '-flow'));
    assert.ok(name === ours || name.startsWith(`${ours}-`), `SES-05 ${line}`);
    assert.ok(attributes.includes('Secure'), `SES-01 ${line}`);
    assert.ok(attributes.includes('HttpOnly'), `SES-02 ${line}`);
    assert.ok(attributes.includes(name === ours ? 'SameSite=Strict' : 'SameSite=Lax'), `SES-03 ${line}`);
    assert.ok(attributes.includes('Path=/') && !attributes.some((attribute) => /^domain/i.test(attribute)), `SES-04 ${line}`);
  }
  assert.deepEqual([...names].sort(), [ours, `${ours}-flow`, `${ours}-logins`, `${ours}-logout-state`]);
});
