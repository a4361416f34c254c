// What the helper tells tabs of each other, in Chromium.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Shop, heard, loaded, name, reason, who } from './support/helper.js';
import { until, within } from './support/wait.js';

let shop;
before(async () => { shop = await Shop.start(); });
after(() => shop?.stop());

const visit = (title, run) => test(title, () => shop.visit(run));

visit('another user logs in in a popup, and both tabs know', async (visitor) => {
  const tab = await shop.login(visitor);
  const other = await shop.show(visitor);
  await visitor.context.clearCookies({ domain: '127.0.0.1' }); // the provider asks again
  const opening = visitor.context.waitForEvent('page');
  await tab.click('#login');
  await shop.fillIn(await opening, 'grace');
  assert.equal(await tab.evaluate(() => window.login), true);
  for (const page of [tab, other]) await heard(page, name, 'Grace Canary-Hopper');
  assert.equal(await who(other), 'Grace Canary-Hopper');
  await shop.oneStream();
});

visit('ten tabs over HTTP/1.1 make calls while one holds the stream', async (visitor) => {
  const tabs = [await shop.login(visitor)];
  while (tabs.length < 10) tabs.push(await shop.show(visitor));
  await shop.oneStream();
  const answers = await within(10_000, 'twenty answers', Promise.all(tabs.map((tab) => tab.evaluate(async () => {
    const responses = await Promise.all([bff.fetch('/api/orders?a'), bff.fetch('/api/orders?b')]);
    return `${responses.map(({ status }) => status)} ${performance.getEntriesByType('navigation')[0].nextHopProtocol}`;
  }))));
  assert.deepEqual(answers, Array(10).fill('200,200 http/1.1'));
  assert.equal(await shop.streams(), 1);

  // One after the other is closed, among them each time the one that holds the stream.
  while (tabs.length > 1) {
    await tabs.pop().close();
    await shop.oneStream();
  }
  const [last] = tabs;
  const at = await shop.endElsewhere(visitor);
  assert.ok(await heard(last, reason, 'logout') - at < 1000);
  await until('no stream is left', async () => await shop.streams() === 0);
});

visit('a logout in one tab turns the other to logged out within a second', async (visitor) => {
  const tab = await shop.login(visitor);
  const other = await shop.show(visitor);
  const page = await loaded(other);
  const at = await tab.evaluate(() => {
    bff.logout({ returnUrl: '/spa/bye' });
    return Date.now();
  });
  const told = await heard(other, reason, 'logout');
  assert.ok(told - at < 1000, `${told - at} ms`);
  assert.equal(await who(other), 'logout');
  assert.equal(await loaded(other), page, 'the page was loaded again');
  await tab.click('#confirm');
  await tab.waitForURL(`${shop.origin}/spa/bye`);
  assert.ok(shop.provider.revoked.length > 0);
  assert.deepEqual(await visitor.cookies(shop.origin), []);
});

visit('an end from elsewhere is known in both tabs within a second', async (visitor) => {
  const tabs = [await shop.login(visitor), await shop.show(visitor)];
  await shop.oneStream();
  const at = await shop.endElsewhere(visitor);
  for (const tab of tabs) {
    const told = await heard(tab, reason, 'logout');
    assert.ok(told - at < 1000, `${told - at} ms`);
  }
});

visit('a restart of the gateway interrupts, but ends nothing', async (visitor) => {
  const tab = await shop.login(visitor);
  await shop.oneStream();
  const before_ = await tab.evaluate(() => told.length);
  assert.equal(await shop.gateway.exit(), 0);
  await shop.gateway.run();
  await shop.oneStream();
  assert.equal(await tab.evaluate(() => told.length), before_);
  const at = await shop.endElsewhere(visitor);
  assert.ok(await heard(tab, reason, 'logout') - at < 1000);
});
