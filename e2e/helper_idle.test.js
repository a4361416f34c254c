// How the helper tells that a session ends by itself. A file of its own: it takes more than a minute.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Shop, heard, reason } from './support/helper.js';

const idle = 65;

let shop;
before(async () => { shop = await Shop.start({ session: { idle_timeout: `${idle}s` } }); });
after(() => shop?.stop());

const expiring = (after) => window.told.find(({ at, me }) => at >= after && me.session?.idle_expires_in <= 60);
const stays = (after) => window.told.find(({ at, me }) => at >= after && me.session?.idle_expires_in > 60);

test('tabs are told that the session expires, that somebody stays, and that it ended, though they poll', () => shop.visit(async (visitor) => {
  const tab = await shop.login(visitor);
  const follower = await shop.show(visitor);
  // This one has no event streams: it looks by itself.
  const alone = await visitor.open();
  await alone.addInitScript(() => { delete window.EventSource; });
  await alone.goto(`${shop.origin}/spa/home`);
  await shop.told(alone);
  await shop.oneStream();
  const tabs = [tab, follower, alone];
  for (const page of tabs) await page.evaluate(() => { setInterval(() => bff.session(), 500); });

  // 60 s before the end; use is recorded at most once in a 20th of the idle timeout.
  const shown = Date.now();
  for (const page of tabs) {
    const at = await heard(page, expiring, 0);
    assert.ok(at - shown < 8000, `${at - shown} ms`);
  }
  const stayed = Date.now();
  assert.ok((await follower.evaluate(() => bff.stay())).session.idle_expires_in >= idle - 1);
  for (const page of tabs) assert.ok(await heard(page, stays, stayed) - stayed < 1000);

  for (const page of tabs) {
    const again = await heard(page, expiring, stayed);
    assert.ok(again - stayed > 3500 && again - stayed < 8000, `${again - stayed} ms`);
  }
  for (const page of tabs) {
    const at = await heard(page, reason, 'idle_timeout', 90_000);
    assert.ok(at - stayed >= idle * 1000 - 500 && at - stayed <= idle * 1050 + 2000, `${at - stayed} ms`);
  }
}));
