import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { World } from './support/world.js';
import { sleep } from './support/wait.js';

const accessTTL = 3;

let world;
let visitor;
let page;
before(async () => {
  world = await World.start({ accessTTL });
  visitor = await world.arrive();
  page = await world.login(visitor);
});
after(() => world?.stop());
afterEach(() => { world.provider.pace.token = 0; });

test('an API call carries a valid token, and still does after several expiries', async () => {
  const cookie = await visitor.header(world.origin);
  for (let expiry = 0; expiry < 4; expiry += 1) {
    const { status, token } = await world.api(page);
    assert.deepEqual({ expiry, status, token }, { expiry, status: 200, token: 'valid' });
    const { authorizations, headers } = world.upstream.seen.at(-1);
    assert.equal(authorizations, 1);
    assert.equal(headers.cookie, undefined, 'the gateway\'s cookie went upstream');
    assert.equal(headers['x-csrf'], undefined);
    await sleep(accessTTL * 1000 + 300);
  }
  assert.ok(world.upstream.tokens.size >= 4, `upstream saw ${world.upstream.tokens.size} tokens`);
  assert.deepEqual(world.provider.reuses(), []);
  assert.equal(world.provider.calls.some(({ error }) => error), false);
  assert.equal(await visitor.header(world.origin), cookie, 'a refresh changed the cookie');
});

test('fifty calls of a page at the moment of expiry cause one token call', async () => {
  await world.api(page);
  await sleep(accessTTL * 1000 + 300);
  const before = world.provider.tokenCalls('refresh_token').length;
  world.provider.pace.token = 300;
  const answers = await page.evaluate(() => Promise.all(Array.from({ length: 50 }, async (_, n) => {
    const answer = await fetch(`/api/echo?n=${n}`, { headers: { 'X-CSRF': '1' } });
    return `${answer.status} ${(await answer.json()).token}`;
  })));
  assert.deepEqual(answers, Array(50).fill('200 valid'));
  assert.equal(world.provider.tokenCalls('refresh_token').length - before, 1);
});

test('two hundred calls by as many connections at the moment of expiry cause one token call', async () => {
  const cookie = await visitor.header(world.origin);
  await world.replay(cookie);
  await sleep(accessTTL * 1000 + 300);
  const before = world.provider.tokenCalls('refresh_token').length;
  world.provider.pace.token = 300;
  const answers = await Promise.all(Array.from({ length: 200 }, () => world.replay(cookie)));
  assert.deepEqual(answers.map(({ status, token }) => `${status} ${token}`), Array(200).fill('200 valid'));
  assert.equal(world.provider.tokenCalls('refresh_token').length - before, 1);
  assert.deepEqual(world.provider.reuses(), []);
});

test('asking who is there refreshes nothing', async () => {
  await sleep(accessTTL * 1000 + 300);
  const before = world.provider.tokenCalls('refresh_token').length;
  const me = await world.session(page);
  assert.equal(me.authenticated, true);
  assert.equal(me.user.name, 'Ada Canary-Lovelace');
  assert.equal(me.access_token.expires_in <= 0, true, 'the access token should have run out');
  assert.equal(world.provider.tokenCalls('refresh_token').length, before);
});
