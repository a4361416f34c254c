// The helper that the gateway serves, in Chromium: calls and logins.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Shop, heard, loaded, name, reason, who } from './support/helper.js';
import { ask } from './support/wire.js';
import { sleep, until, within } from './support/wait.js';

describe('a shop', () => {
  let shop;
  before(async () => { shop = await Shop.start(); });
  after(() => shop?.stop());

  const visit = (title, run) => test(title, () => shop.visit(run));

  const call = (tab, init) => tab.evaluate(async (options) => {
    const response = await bff.fetch('/api/orders', options);
    return { status: response.status, ...await response.json() };
  }, init);

  test('the gateway serves it as a file that does not change', async () => {
    const answer = await ask(`${shop.origin}/bff/client.js`);
    const { 'content-type': type, 'cache-control': caching, etag } = answer.headers;
    assert.deepEqual({ type, caching }, { type: 'text/javascript; charset=utf-8', caching: 'public, max-age=300' });
    assert.equal((await ask(`${shop.origin}/bff/client.js`, { headers: { 'if-none-match': etag } })).status, 304);
    assert.equal((await ask(`${shop.origin}/bff/client.js`, { method: 'HEAD' })).body, '');
    assert.match((await ask(`${shop.origin}/bff/client.d.ts`)).body, /export const bff: Bff;/);
  });

  visit('a login by a call comes back with path, query and fragment, and is one for five calls', async (visitor) => {
    const tab = await shop.show(visitor, '/spa/orders/7?page=2&q=%C3%BC%2Fa+b#row-7?x=1');
    assert.equal(await who(tab), 'none');
    const address = await tab.evaluate(() => location.href);
    const before_ = shop.requests('/bff/login');
    await tab.evaluate(() => { for (let i = 0; i < 5; i += 1) bff.fetch('/api/orders', { method: 'POST', body: 'never sent' }); });
    await shop.fillIn(tab);
    await tab.waitForURL(address);
    await shop.told(tab);
    assert.equal(await who(tab), 'Ada Canary-Lovelace');
    assert.equal(shop.requests('/bff/login') - before_, 1);
    assert.equal(shop.upstream.orders.includes('never sent'), false);
    const { status, bearer } = await call(tab, { method: 'POST', body: 'sent' });
    assert.deepEqual({ status, bearer }, { status: 200, bearer: true });
  });

  // orderInPopup orders five things, for which the visitor has to log in in the popup that opens.
  async function orderInPopup(visitor, tab, meanwhile = () => {}) {
    const page = await loaded(tab);
    shop.upstream.orders.length = 0;
    const logins = shop.requests('/bff/login');
    const opening = visitor.context.waitForEvent('page');
    await tab.click('#order');
    const popup = await opening;
    await popup.waitForSelector('#login');
    await meanwhile(popup);
    await shop.fillIn(popup);
    const answers = await within(10_000, 'the answers', tab.evaluate(() => window.answers));
    assert.deepEqual(answers.map(({ status, bearer }) => `${status} ${bearer}`), Array(5).fill('200 true'));
    const { orders } = shop.upstream;
    assert.deepEqual(orders.map((body) => (body.length > 100 ? 'file' : body)).sort(), ['file', 'order 1', 'order 2', 'order 3', 'order 4']);
    assert.equal(orders.find((body) => body.length > 100).match(/x{300000}/g)?.length, 1);
    assert.equal(shop.requests('/bff/login') - logins, 1);
    assert.equal(await loaded(tab), page);
    await until('the popup is closed', () => popup.isClosed());
    await heard(tab, name, 'Ada Canary-Lovelace');
    await shop.oneStream();
  }

  visit('a login in a popup replays every call once, with its body', async (visitor) => {
    const tab = await shop.show(visitor, '/spa/orders?page=2#row-7');
    await orderInPopup(visitor, tab);
    assert.equal(tab.url(), `${shop.origin}/spa/orders?page=2#row-7`);
  });

  visit('it does so though the provider cuts the tie to its popup', (visitor) => shop.severing(async () => {
    const tab = await shop.show(visitor);
    await orderInPopup(visitor, tab, async (popup) => {
      assert.equal(await popup.evaluate(() => window.opener), null, 'the tie is not cut');
      // Playwright gives every page the focus. Somebody who types in the popup has it there.
      await tab.evaluate(() => { document.hasFocus = () => false; });
      await sleep(2000); // for all that time it looks closed
    });
  }));

  visit('who closes the popup is told so, and nothing was ordered', async (visitor) => {
    const tab = await shop.show(visitor);
    shop.upstream.orders.length = 0;
    const opening = visitor.context.waitForEvent('page');
    await tab.click('#order');
    const popup = await opening;
    await popup.waitForSelector('#login');
    await popup.close();
    const answers = await within(10_000, 'the answers', tab.evaluate(() => window.answers));
    assert.deepEqual(answers.map(({ code }) => code), Array(5).fill('session_required'));
    assert.deepEqual(shop.upstream.orders, []);
  });

  visit('where popups are blocked the page goes to the login', async (visitor) => {
    const tab = await shop.show(visitor, '/spa/a#b');
    await tab.evaluate(() => { window.open = () => null; });
    await tab.click('#order');
    await shop.fillIn(tab);
    await tab.waitForURL(`${shop.origin}/spa/a#b`);
  });

  visit('nothing of it is against a policy that allows the origin\'s own files alone', async (visitor) => {
    const tab = await shop.show(visitor);
    await orderInPopup(visitor, tab);
    await call(tab, { method: 'POST', body: 'b' });
    await tab.evaluate(() => bff.stay());
    await shop.endElsewhere(visitor);
    await heard(tab, reason, 'logout');
    assert.deepEqual(await tab.evaluate(() => window.forbidden), []);
    // What would be against it is noticed.
    await tab.evaluate(() => { new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='; });
    await tab.waitForFunction(() => window.forbidden.length === 1);
  });
});

describe('a shop whose provider fails', () => {
  let shop;
  before(async () => { shop = await Shop.start({ accessTTL: 2 }); });
  after(() => shop?.stop());

  test('503 is waited for, and the call comes through with its body', () => shop.visit(async (visitor) => {
    const tab = await shop.login(visitor);
    shop.gate.down = true;
    await sleep(2500); // the access token runs out
    const unavailable = () => shop.gateway.events('request').filter(({ path, status }) => path === '/api/orders' && status === 503).length;
    const answer = tab.evaluate(async () => {
      const response = await bff.fetch('/api/orders', { method: 'POST', body: 'patience' });
      return { status: response.status, ...await response.json() };
    });
    await until('the call was refused', () => unavailable() === 1);
    shop.gate.down = false;
    const { status, length } = await within(30_000, 'the answer', answer);
    assert.deepEqual({ status, length }, { status: 200, length: 8 });
    assert.deepEqual(shop.upstream.orders, ['patience']);
    assert.ok(unavailable() >= 1 && unavailable() <= 3);
    assert.equal(await who(tab), 'Ada Canary-Lovelace');
  }));
});
