// The React example in development: Vite's dev server behind the gateway.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Example, complaints } from './support/react.js';

let example;
before(async () => { example = await Example.start({ dev: true }); });
after(() => example?.stop());

test('a change of the sources shows without a reload, by way of the gateway', async () => {
  const visitor = await example.arrive();
  const page = await visitor.open();
  const heard = complaints(page, example.origin);
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(new URL(socket.url())));
  await page.goto(`${example.origin}/`);
  await example.login(page);
  await page.waitForSelector('tbody tr');
  await page.fill('[name=customer]', 'half an order');
  await page.evaluate(() => { window.sameDocument = true; });

  const file = join(example.dir, 'src/Orders.jsx');
  const source = readFileSync(file, 'utf8');
  assert.match(source, /<Title>Orders<\/Title>/);
  writeFileSync(file, source.replace('<Title>Orders</Title>', '<Title>Orders, changed</Title>'));
  await page.waitForSelector('h1:has-text("Orders, changed")');
  assert.equal(await page.inputValue('[name=customer]'), 'half an order', 'the state is kept');
  assert.equal(await page.evaluate(() => window.sameDocument), true);
  assert.deepEqual(heard, []);
  assert.ok(sockets.length >= 3, 'hot updates of two documents, and the feed');
  assert.deepEqual([...new Set(sockets.map(({ host }) => host))], [new URL(example.origin).host]);
  await visitor.leave();
});
