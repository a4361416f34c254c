import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { ask } from './support/wire.js';
import { until } from './support/wait.js';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());

const visit = (name, run) => test(name, async () => {
  const visitor = await world.arrive();
  try {
    await run(visitor);
  } finally {
    await visitor.leave();
  }
});

// logoutAtProvider confirms on the provider's page, and waits for the app.
async function logoutAtProvider(page, path) {
  await page.waitForURL((url) => url.href.startsWith(`${world.provider.issuer}/session/end`));
  await page.click('#confirm');
  await page.waitForURL(world.origin + path);
}

// redeem asks the provider to refresh, as a thief of that token would.
async function redeem(token) {
  const { issuer, client } = world.provider;
  const answer = await ask(`${issuer}/token`, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString('base64')}`,
    },
    body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token }).toString(),
  });
  return answer.json().error ?? 'redeemed';
}

// over checks that a session has ended everywhere by a logout: here, in the browser, at the provider.
async function over(visitor, page, cookie, refreshToken) {
  const { status, code, reason } = await world.replay(cookie);
  assert.deepEqual({ status, code, reason }, { status: 401, code: 'session_ended', reason: 'logout' });
  assert.deepEqual(await visitor.cookies(world.origin), [], 'the browser keeps cookies of ours');
  assert.ok(world.provider.revoked.includes(refreshToken), 'the refresh token was not revoked');
  assert.equal(await redeem(refreshToken), 'invalid_grant');
  await page.goto(`${world.origin}/app/again`);
  await page.waitForSelector('#login'); // the form: the provider has forgotten, too
}

const latest = (set) => [...set].at(-1);

visit('the logout link ends the session here and at the provider', async (visitor) => {
  const page = await world.login(visitor);
  const cookie = await visitor.header(world.origin);
  await page.goto(`${world.origin}/`);
  await page.click('#logout');
  await logoutAtProvider(page, '/');
  assert.equal(await page.textContent('#page'), 'app');
  await over(visitor, page, cookie, latest(world.provider.minted.refresh));
});

visit('a logout by POST ends the session here and, once continued, at the provider', async (visitor) => {
  const page = await world.login(visitor);
  const cookie = await visitor.header(world.origin);
  const answer = await page.evaluate(async () => {
    const response = await fetch('/bff/logout', { method: 'POST', headers: { 'X-CSRF': '1' } });
    return { status: response.status, body: await response.json() };
  });
  assert.deepEqual(answer, { status: 200, body: { redirect_url: '/bff/logout/continue' } });
  // Ended before the provider is asked: who closes the tab now is logged out all the same.
  assert.equal((await world.replay(cookie)).reason, 'logout');
  assert.ok(world.provider.revoked.includes(latest(world.provider.minted.refresh)));
  await page.evaluate((url) => { window.location = url; }, answer.body.redirect_url);
  await logoutAtProvider(page, '/');
  await over(visitor, page, cookie, latest(world.provider.minted.refresh));
});

visit('a logout returns to where the app wants', async (visitor) => {
  const page = await world.login(visitor);
  const { logout_url: url } = await world.session(page);
  const path = '/goodbye?x=a%20b+c#part';
  await page.goto(`${world.origin}${url}&returnUrl=${encodeURIComponent(path)}`);
  await logoutAtProvider(page, path);
});

visit('a logout link without the session\'s own sid, or with another, ends nothing', async (visitor) => {
  const page = await world.login(visitor);
  const { logout_url: url } = await world.session(page);
  for (const path of ['/bff/logout', '/bff/logout?sid=', `${url}x`, '/bff/logout?sid=AAAA']) {
    const response = await page.goto(world.origin + path);
    assert.equal(response.status(), 400, path);
    const sid = new URLSearchParams(url.split('?')[1]).get('sid');
    assert.equal((await response.text()).includes(sid), false, 'the page shows the right sid');
  }
  await page.goto(`${world.origin}/app/start`);
  assert.equal((await world.api(page)).token, 'valid');
});

visit('a prefetch or prerender of the logout link ends nothing', async (visitor) => {
  const page = await world.login(visitor);
  const { logout_url: url } = await world.session(page);
  const marked = (name) => `${url}&by=${name}`;
  world.upstream.pages.set('/app/hasty', `<!doctype html><h1 id="page">hasty</h1>
<link rel="prefetch" href="${marked('link')}">
<script type="speculationrules">${JSON.stringify({
    prefetch: [{ source: 'list', urls: [marked('prefetch')], eagerness: 'immediate' }],
    prerender: [{ source: 'list', urls: [marked('prerender')], eagerness: 'immediate' }],
  })}</script>`);
  const refusals = () => world.gateway.events('request').filter(({ path, status }) => path === '/bff/logout' && status === 403).length;
  const before = refusals();
  await page.goto(`${world.origin}/app/hasty`);
  await until('the browser has fetched ahead, and was refused', () => refusals() >= before + 2);
  assert.equal((await world.api(page)).token, 'valid');

  const cookie = await visitor.header(world.origin);
  for (const purpose of ['prefetch', 'prefetch;prerender', 'prefetch;anonymous-client-ip', 'something-new']) {
    const answer = await ask(world.origin + url, {
      headers: { cookie, 'sec-purpose': purpose, 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', 'sec-fetch-site': 'same-origin' },
    });
    assert.equal(answer.status, 403, purpose);
    assert.equal(answer.headers['set-cookie'], undefined, purpose);
  }
  assert.equal((await ask(world.origin + url, { method: 'HEAD', headers: { cookie } })).status, 405);
  assert.equal((await world.api(page)).token, 'valid');
});

visit('images, frames and forms of another site can neither log in nor out', async (visitor) => {
  const page = await world.login(visitor);
  const { logout_url: url } = await world.session(page);
  const cookies = await visitor.cookies(world.origin);
  const attacks = ['/bff/login?returnUrl=/x', '/bff/logout', url, '/bff/logout/continue', '/bff/callback?code=x&state=y'];
  world.site.pages.set('/attack', `<!doctype html>${attacks.map((path) => `
<img src="${world.origin}${path}"><iframe src="${world.origin}${path}"></iframe>
<link rel="stylesheet" href="${world.origin}${path}"><script src="${world.origin}${path}"></script>`).join('')}
<iframe name="sink"></iframe><form id="post" method="post" target="sink" action="${world.origin}/bff/logout"></form>
<script>document.querySelector('#post').submit()</script>`);
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  const before = world.gateway.events('request').length;
  await page.goto(`${world.site.url}/attack`);
  const answers = () => world.gateway.events('request').slice(before);
  await until('every attack is answered', () => answers().length >= attacks.length * 4 + 1); // and the form
  assert.deepEqual(answers().filter(({ status }) => status !== 403), []);
  assert.deepEqual(asked.filter((address) => address.startsWith(world.provider.issuer)), [], 'the provider was asked');
  assert.deepEqual(await visitor.cookies(world.origin), cookies);
  await page.goto(`${world.origin}/app/start`);
  assert.equal((await world.api(page)).token, 'valid');
});

visit('a link from another site to the logout ends nothing', async (visitor) => {
  const page = await world.login(visitor);
  const cookie = await visitor.header(world.origin);
  world.site.pages.set('/link', `<a id="go" href="${world.origin}/bff/logout">free kittens</a>`);
  await page.goto(`${world.site.url}/link`);
  await page.click('#go');
  await page.waitForURL((to) => to.origin === world.origin);
  assert.equal((await world.replay(cookie)).status, 200);
});

visit('a logout in one tab is known in the other', async (visitor) => {
  const page = await world.login(visitor);
  const other = await visitor.open();
  await other.goto(`${world.origin}/app/other`);
  await page.goto(`${world.origin}/`);
  await page.click('#logout');
  await page.waitForSelector('#confirm');
  const { status, code } = await world.api(other);
  assert.deepEqual({ status, code }, { status: 401, code: 'session_required' }); // the cookie is gone
});
