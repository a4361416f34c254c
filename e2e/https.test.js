// An https origin, where the rules of __Host- cookies are the browser's to enforce.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { sleep } from './support/wait.js';

const accessTTL = 3;
const name = '__Host-Http-session';

let world;
let visitor;
let page;
before(async () => {
  world = await World.start({ tls: true, accessTTL });
  visitor = await world.arrive();
  page = await visitor.open();
});
after(() => world?.stop());

test('a login at an https origin leaves one cookie, which only the gateway can read', async () => {
  await page.goto(`${world.origin}/app/orders?x=1`);
  await world.fillIn(page);
  await world.arrived(page, '/app/orders?x=1');
  assert.equal(await page.textContent('#token'), 'valid');

  const cookies = await visitor.cookies(world.origin);
  const { value, ...attributes } = cookies.find((cookie) => cookie.name === name);
  // Besides it only the count of logins, which ends loops and lives for a minute.
  assert.deepEqual(cookies.map((cookie) => cookie.name).sort(), [name, `${name}-logins`]);
  assert.ok(value.length > 40);
  for (const [key, want] of Object.entries({
    name, domain: 'localhost', path: '/', expires: -1, httpOnly: true, secure: true, sameSite: 'Strict',
  })) assert.equal(attributes[key], want, key);
  assert.equal(await page.evaluate(() => document.cookie), '');
});

test('a script cannot plant a session cookie', async () => {
  await page.evaluate((cookie) => {
    document.cookie = `${cookie}=planted; Secure; Path=/`;
    document.cookie = `${cookie}=planted; Secure; Path=/app`;
  }, name);
  const sent = (await visitor.cookies(`${world.origin}/app/x`)).filter((cookie) => cookie.name === name);
  assert.equal(sent.length, 1);
  assert.equal((await world.api(page)).token, 'valid');
});

test('the token is fresh after expiries', async () => {
  for (let expiry = 0; expiry < 2; expiry += 1) {
    await sleep(accessTTL * 1000 + 300);
    assert.equal((await world.api(page)).token, 'valid');
  }
  assert.deepEqual(world.provider.reuses(), []);
});

test('two tabs log in at once, each with a flow of its own', async () => {
  const other = await world.arrive();
  try {
    const [first, second] = [await other.open(), await other.open()];
    await first.goto(`${world.origin}/app/first`);
    await second.goto(`${world.origin}/app/second`);
    const flows = await other.cookies(`${world.origin}/bff/callback`);
    assert.equal(flows.length, 2);
    for (const flow of flows) {
      assert.match(flow.name, new RegExp(`^${name}-`));
      assert.deepEqual([flow.httpOnly, flow.secure, flow.sameSite], [true, true, 'Lax']);
    }
    await world.fillIn(second);
    await world.arrived(second, '/app/second');
    await world.fillIn(first);
    await world.arrived(first, '/app/first');
    const left = (await other.cookies(world.origin)).map((cookie) => cookie.name);
    assert.equal(flows.some((flow) => left.includes(flow.name)), false, 'a flow cookie is left behind');
  } finally {
    await other.leave();
  }
});

test('a link from another site finds the session', async () => {
  world.site.pages.set('/wiki', `<a id="go" href="${world.origin}/app/orders?x=1#part-2">orders</a>`);
  await page.goto(`${world.site.url}/wiki`);
  await page.click('#go');
  await world.arrived(page, '/app/orders?x=1#part-2');
  assert.equal(await page.textContent('#token'), 'valid');
});

test('a WebSocket works over TLS', async () => {
  const message = await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/api/socket`);
    socket.onmessage = ({ data }) => { socket.close(); resolve(data); };
    socket.onerror = () => reject(new Error('the WebSocket broke'));
  }));
  assert.equal(message, 'token valid');
});

test('CVE-2025-55162 a logout leaves no cookie', async () => {
  const cookie = await visitor.header(world.origin);
  await page.goto(`${world.origin}/`);
  await page.click('#logout');
  await page.click('#confirm');
  await page.waitForURL(`${world.origin}/`);
  assert.deepEqual(await visitor.cookies(world.origin), []);
  assert.equal((await world.replay(cookie)).reason, 'logout');
});
