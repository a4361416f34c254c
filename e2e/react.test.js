// The React example, built and under its strict Content-Security-Policy.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { device } from '../examples/react/src/device.js';
import { Example, complaints, ended, noteEnd } from './support/react.js';
import { until } from './support/wait.js';

const iPhone = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1';

const rows = (page) => page.locator('tbody tr').count();

let example;
before(async () => { example = await Example.start(); });
after(() => example?.stop());

test('logs in and shows orders and the feed, under a policy that allows nothing inline', async () => {
  const visitor = await example.arrive();
  const page = await visitor.open();
  const heard = complaints(page, example.origin);
  const index = await page.goto(`${example.origin}/live?from=mail#top`);
  const policy = index.headers()['content-security-policy'];
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|data:|\*/);
  assert.match(await page.innerText('h1'), /Every order/);

  await example.login(page);
  await page.waitForURL(`${example.origin}/live?from=mail#top`);
  await page.waitForSelector('.top .badge.open');
  const messages = page.locator('.feed li time');
  await until('messages of the feed', async () => await messages.count() >= 2);

  await page.click('nav >> text="Orders"');
  await page.waitForSelector('tbody tr');
  const before_ = await rows(page);
  assert.ok(before_ >= 9, `${before_} orders`);
  await page.fill('[name=customer]', 'Ada Canary');
  await page.fill('[name=item]', 'Difference engine');
  await page.click('text="Place order"');
  const placed = page.locator('tbody tr', { hasText: 'Difference engine' });
  await placed.waitFor();
  assert.equal(await placed.count(), 1, 'told by the answer and by the feed, and shown once');
  await page.reload();
  await placed.waitFor();

  assert.match(await page.innerText('.top'), /Ada Canary-Lovelace/);
  await page.click('.user');
  assert.match(await page.innerText('#user-menu'), /ada\.canary@example\.test/);
  assert.deepEqual(heard, []);

  await page.close(); // and with it the event stream, which would not settle
  const received = (await visitor.settled()).map(({ headers, body }) => JSON.stringify(headers) + body).join('\n');
  assert.match(received, /Difference engine/);
  for (const token of [...example.provider.minted.access, ...example.provider.minted.refresh, ...example.provider.minted.id]) {
    assert.ok(!received.includes(token), 'a token reached the browser');
  }
  await visitor.leave();
});

test('my devices lists two browsers, and ends the other', async () => {
  const visitor = await example.arrive();
  const page = await example.orders(visitor.context, 'grace');
  for (const [button, confirmed] of [['text="Log out"', 'Safari 18 on iPhone is logged out.'], ['text="Log out all others"', 'All other devices are logged out.']]) {
    const phone = await example.browser.newContext({ userAgent: iPhone, viewport: { width: 390, height: 844 } });
    const other = await example.orders(phone, 'grace');
    await noteEnd(other);
    await page.click('nav >> text="Orders"');
    await page.click('nav >> text="Devices"');
    const devices = page.locator('.device');
    await until('both are listed', async () => await devices.count() === 2);
    assert.match(await devices.filter({ hasText: 'this device' }).innerText(), /Chrome \d+ on Linux/);
    assert.match(await devices.filter({ hasNotText: 'this device' }).innerText(), /^Safari 18 on iPhone\n/);

    await page.click(`main >> ${button}`);
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog:not(.countdown)', { state: 'detached' });
    assert.equal(await other.locator('.ended').count(), 0, 'who thought better of it ended nothing');
    await page.click(`main >> ${button}`);
    const at = Date.now();
    await page.click('dialog .danger');
    const end = await ended(other);
    assert.match(end.text, /logged out from another one/);
    assert.match(end.text, /revoked/);
    assert.ok(end.at - at < 1500, `it took ${end.at - at} ms`);
    await until('the feed is closed', async () => /4401 revoked/.test(await other.innerText('.ended')));
    await page.waitForSelector(`text="${confirmed}"`);
    await until('one is left', async () => await devices.count() === 1);
    await phone.close();
  }
  assert.equal((await page.evaluate(async () => (await fetch('/api/orders', { headers: { 'X-CSRF': '1' } })).status)), 200);
  await visitor.leave();
});

test('a logout in one tab shows in the other within a second, without a reload', async () => {
  const visitor = await example.arrive();
  const page = await example.orders(visitor.context);
  const other = await visitor.open();
  await other.goto(`${example.origin}/live`);
  await other.waitForSelector('.top .badge.open');
  await page.bringToFront();
  await noteEnd(other);
  await page.click('.user');
  const at = Date.now();
  await page.click('#user-menu >> text="Log out"');
  const end = await ended(other);
  assert.match(end.text, /You are logged out/);
  assert.ok(end.at - at < 1000, `it took ${end.at - at} ms`);
  await until('the feed is closed', async () => /4401 logout/.test(await other.innerText('.ended')));
  assert.equal(await other.evaluate(() => document.activeElement.textContent), 'You are logged out', 'the heading has the focus');

  await page.click('#confirm');
  await page.waitForURL(`${example.origin}/goodbye`);
  assert.match((await ended(page)).text, /See you soon/);
  await visitor.leave();
});

test('BC-07: a logout at the provider closes the feed with 4401 and says so', async () => {
  const visitor = await example.arrive();
  const page = await example.orders(visitor.context);
  await page.click('nav >> text="Live feed"');
  await noteEnd(page);
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(socket.url()));
  const tab = await visitor.open();
  await tab.goto(`${example.provider.issuer}/session/end`);
  const at = Date.now();
  await tab.click('#confirm');
  const end = await ended(page);
  assert.match(end.text, /You logged out of your account in another app/);
  assert.ok(end.at - at < 1500, `it took ${end.at - at} ms`);
  await until('the feed is closed', async () => /4401 backchannel/.test(await page.innerText('.ended')));

  await page.click('text="Log in again"');
  await page.waitForURL((url) => url.href.startsWith(`${example.provider.issuer}/interaction/`));
  assert.deepEqual(sockets, [], 'a session that ended is no reason to connect again');
  await visitor.leave();
});

test('the feed connects again when the API was away', async () => {
  const visitor = await example.arrive();
  const page = await example.orders(visitor.context);
  await page.click('nav >> text="Live feed"');
  await example.stopAPI();
  await page.waitForSelector('.connection .waiting');
  await page.waitForSelector('text=/Next attempt in \\d+ s/');
  await example.startAPI();
  await page.waitForSelector('.connection .open');
  await visitor.leave();
});

test('a User-Agent is a browser and a system', () => {
  const names = (userAgent) => { const { browser, system } = device(userAgent); return `${browser} on ${system}`; };
  for (const [userAgent, want] of [
    [iPhone, 'Safari 18 on iPhone'],
    ['Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0', 'Edge 141 on Windows'],
    ['Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0', 'Firefox 145 on Windows'],
    ['Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15', 'Safari 18 on macOS'],
    ['Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36', 'Chrome 141 on Android'],
    ['Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 OPR/125.0.0.0', 'Opera 125 on Linux'],
    ['curl/8.14.1', 'Unknown browser on unknown system'],
    [undefined, 'Unknown browser on unknown system'],
  ]) {
    assert.equal(names(userAgent), want);
  }
});
