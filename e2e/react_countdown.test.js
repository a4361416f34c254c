// The React example shortly before a session ends.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Example, ended } from './support/react.js';

let example;
before(async () => { example = await Example.start({ idleTimeout: '9s' }); });
after(() => example?.stop());

test('a dialog counts down; "stay" keeps the session, silence ends it', async () => {
  const visitor = await example.arrive();
  const page = await example.orders(visitor.context);
  const session = () => page.evaluate(async () => (await fetch('/bff/session', { headers: { 'X-CSRF': '1' } })).json());
  const dialog = page.locator('dialog.countdown[open]');
  const firstEnd = Date.now() + ((await session()).session.idle_expires_in + 1) * 1000; // it counts whole seconds
  await dialog.waitFor();
  assert.ok(Date.now() < firstEnd, 'the dialog comes before the end');
  assert.match(await dialog.innerText(), /You will be logged out in [1-3] s/);
  assert.match(await page.title(), /^[1-3] s left · Orders/);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Stay logged in');
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await page.title(), 'Orders · Quayside');

  await dialog.waitFor();
  assert.ok(Date.now() > firstEnd, 'this is another end');
  assert.equal((await session()).authenticated, true);
  assert.match((await ended(page)).text, /You were away for a while/);
  assert.equal((await session()).reason, 'idle_timeout');
  await visitor.leave();
});
