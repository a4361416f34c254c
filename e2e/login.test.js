import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { ask } from './support/wire.js';
import { sleep } from './support/wait.js';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());

// visit gives a test a person with a browser of their own.
const visit = (name, run) => test(name, async () => {
  const visitor = await world.arrive();
  try {
    await run(visitor);
  } finally {
    await visitor.leave();
  }
});

visit('a deep link to a page leads through the login form back to itself, its query byte for byte', async (visitor) => {
  const link = '/app/orders;v=2?x=1&y=a%20b+c&z=%C3%BC&empty=&q=%26%3D%2F';
  const page = await visitor.open();
  // The fragment never reaches a server, and the provider's form loses it (DESIGN.md, section 12).
  await page.goto(`${world.origin}${link}#part-2`);
  await world.fillIn(page);
  await page.waitForSelector('#page');
  const { pathname, search } = new URL(page.url());
  assert.equal(pathname + search, link);
  assert.equal(await page.textContent('#token'), 'valid', 'the page was asked for without a valid token');
  assert.equal(world.upstream.seen.at(-1).url, link);
});

visit('a login link that the SPA builds brings path, query and fragment back exactly', async (visitor) => {
  const link = '/orders/7?x=1&y=a%20b+c&z=%C3%BC#part/2?a=b&c=%20d';
  const page = await visitor.open();
  await page.goto(world.origin + link);
  await page.click('#login');
  await world.fillIn(page);
  await page.waitForSelector('body[data-ready]');
  assert.equal(await page.evaluate(() => location.href), world.origin + link);
  assert.equal(await page.textContent('#who'), 'Ada Canary-Lovelace');
});

visit('who is still logged in at the provider gets back without a form, and keeps even the fragment', async (visitor) => {
  const page = await world.login(visitor);
  await visitor.context.clearCookies({ domain: 'localhost' });
  await page.goto(`${world.origin}/app/orders?x=1#part-2`);
  await world.arrived(page, '/app/orders?x=1#part-2');
  assert.equal(await page.textContent('#token'), 'valid');
});

visit('a wrong password is the provider\'s affair, and the right one then logs in', async (visitor) => {
  const page = await visitor.open();
  await page.goto(`${world.origin}/app/orders`);
  await world.fillIn(page, 'ada', 'wrong');
  await page.waitForSelector('text=Wrong name or password.');
  await world.fillIn(page);
  await world.arrived(page, '/app/orders');
});

visit('who cancels at the provider gets a page that says so and a way to start again', async (visitor) => {
  const page = await visitor.open();
  await page.goto(`${world.origin}/app/orders`);
  await page.waitForSelector('#cancel');
  const answered = page.waitForResponse((response) => response.url().includes('/bff/callback?'));
  await page.click('#cancel');
  const answer = await answered;
  assert.equal(answer.status(), 403);
  assert.match(answer.headers()['content-type'], /^text\/html/);
  await page.click('a[href^="/bff/login"]');
  await world.fillIn(page);
  await page.waitForURL((url) => url.origin === world.origin);
  assert.equal((await world.api(page)).token, 'valid');
});

visit('two tabs that log in at once and finish in reverse order both land on their own deep links', async (visitor) => {
  const [first, second] = [await visitor.open(), await visitor.open()];
  await first.goto(`${world.origin}/app/first?tab=1`);
  await second.goto(`${world.origin}/app/second?tab=2`);
  await world.fillIn(second);
  await world.arrived(second, '/app/second?tab=2');
  await world.fillIn(first);
  await world.arrived(first, '/app/first?tab=1');
  for (const tab of [first, second]) assert.equal((await world.api(tab)).token, 'valid');
});

visit('going back over the callback, or calling it again, ends in the app and redeems nothing', async (visitor) => {
  const page = await visitor.open();
  const callbacks = [];
  page.on('request', (request) => {
    if (request.url().startsWith(`${world.origin}/bff/callback?`)) callbacks.push(request.url());
  });
  await page.goto(`${world.origin}/app/orders`);
  await world.fillIn(page);
  await world.arrived(page, '/app/orders');
  await page.goto(`${world.origin}/app/elsewhere`);

  const [callback] = callbacks;
  const before = world.provider.tokenCalls('authorization_code').length;
  const { value } = (await visitor.cookies(world.origin)).find(({ name }) => name === 'sessiongate');
  await page.goto(callback); // as a restored tab or a bookmark would
  assert.equal(page.url(), `${world.origin}/`);
  assert.equal(await page.textContent('#page'), 'app');
  await page.goBack();
  await world.arrived(page, '/app/elsewhere');
  await page.goForward();
  assert.equal(page.url(), `${world.origin}/`);
  assert.equal((await world.api(page)).token, 'valid');
  const after = (await visitor.cookies(world.origin)).find(({ name }) => name === 'sessiongate');
  assert.equal(after.value, value, 'the session cookie changed');

  // Elsewhere, without the session: a page with a way on.
  const stranger = await ask(callback, { headers: { accept: 'text/html' } });
  assert.equal(stranger.status, 400);
  assert.match(stranger.headers['content-type'], /^text\/html/);
  assert.match(stranger.body, /href="\/bff\/login/);
  assert.equal(stranger.headers['set-cookie']?.some((cookie) => cookie.startsWith('sessiongate=')) ?? false, false);
  assert.equal(world.provider.tokenCalls('authorization_code').length, before, 'a code was redeemed again');
});

visit('a second login in the same browser ends the first session, and the second one lasts', async (visitor) => {
  const page = await world.login(visitor);
  const former = await visitor.header(world.origin);
  assert.equal((await world.replay(former)).status, 200);
  await page.goto(`${world.origin}/bff/login?prompt=login&returnUrl=${encodeURIComponent('/app/again')}`);
  await world.fillIn(page);
  await world.arrived(page, '/app/again');
  assert.notEqual(await visitor.header(world.origin), former);

  const { status, code, reason } = await world.replay(former);
  assert.deepEqual({ status, code, reason }, { status: 401, code: 'session_ended', reason: 'replaced' });
  // The provider keeps one grant for both logins: had the gateway revoked the former token, this refresh would fail.
  await sleep(5000);
  assert.equal((await world.api(page)).token, 'valid');
});

visit('a link from another site into a page finds the session, without a login and with its fragment', async (visitor) => {
  const page = await world.login(visitor);
  world.site.pages.set('/wiki', `<a id="go" href="${world.origin}/app/orders?x=1#part-2">orders</a>`);
  await page.goto(`${world.site.url}/wiki`);
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  await page.click('#go');
  await world.arrived(page, '/app/orders?x=1#part-2');
  assert.equal(await page.textContent('#token'), 'valid');
  assert.deepEqual(asked.filter((url) => url.startsWith(world.provider.issuer)), [], 'the provider was asked');
  await page.goBack();
  assert.equal(page.url(), `${world.site.url}/wiki`, 'the hop is a trap for the back button');
});
