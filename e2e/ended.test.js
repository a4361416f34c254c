// A session that ends is over everywhere: in every tab, for every stream, and in every browser that has to know.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { World } from './support/world.js';
import { ask } from './support/wire.js';
import { until } from './support/wait.js';

// attend opens in a tab what an app may have open, and notes how it ends.
const attend = (page) => page.evaluate(() => new Promise((resolve, reject) => {
  const seen = { ticks: 0, messages: 0 };
  window.seen = seen;
  const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/api/socket`);
  socket.onmessage = () => { seen.messages += 1; };
  socket.onclose = ({ code, reason }) => { seen.socket = { code, reason, at: Date.now() }; };
  const ticks = new EventSource('/api/ticks');
  ticks.onmessage = () => { seen.ticks += 1; if (seen.ticks === 2) resolve(); };
  ticks.onerror = () => { seen.stream ??= { at: Date.now() }; ticks.close(); };
  const events = new EventSource('/bff/events');
  events.addEventListener('session.ended', ({ data }) => { seen.ended = { ...JSON.parse(data), at: Date.now() }; events.close(); });
  setTimeout(() => reject(new Error('no ticks')), 10_000);
}));

const seen = (page) => page.evaluate(() => window.seen);

// allOver waits until everything that a tab had open was told the reason, and returns when the last of it was.
async function allOver(page, reason) {
  await until(`everything is told ${reason}`, async () => {
    const { socket, stream, ended } = await seen(page);
    return socket && stream && ended;
  });
  const { socket, stream, ended } = await seen(page);
  assert.deepEqual({ code: socket.code, reason: socket.reason, ended: ended.reason }, { code: 4401, reason, ended: reason });
  const answer = await ask(new URL('/', page.url()).href);
  assert.equal(answer.status, 200);
  return Math.max(socket.at, stream.at, ended.at);
}

async function going(page) {
  const before = await seen(page);
  await until('more ticks', async () => (await seen(page)).ticks > before.ticks + 2);
  const { socket, stream, ended } = await seen(page);
  assert.deepEqual({ socket, stream, ended }, { socket: undefined, stream: undefined, ended: undefined });
}

// leaveProvider logs out at the provider itself, in a tab of that browser, without the app.
async function leaveProvider(world, visitor) {
  const tab = await visitor.open();
  await tab.goto(`${world.provider.issuer}/session/end`);
  const at = Date.now();
  await tab.click('#confirm');
  return at;
}

for (const [what, bySubject] of [['the session at the provider', false], ['the user', true]]) {
  describe(`BC-07: a logout token that names ${what}`, () => {
    let world;
    before(async () => { world = await World.start({ accessTTL: 60, bySubject }); });
    after(() => world?.stop());

    test('ends what it names with its tabs and streams, and nothing else', async () => {
      const [ada, adasPhone, grace] = await Promise.all([1, 2, 3].map(() => world.arrive()));
      const pages = { ada: await world.login(ada), phone: await world.login(adasPhone), grace: await world.login(grace, 'grace') };
      pages.second = await ada.open();
      await pages.second.goto(`${world.origin}/app/second`);
      await Promise.all(Object.values(pages).map(attend));
      const cookies = { ada: await ada.header(world.origin), phone: await adasPhone.header(world.origin) };

      const at = await leaveProvider(world, ada);
      const over = [pages.ada, pages.second, ...(bySubject ? [pages.phone] : [])];
      for (const page of over) {
        const took = await allOver(page, 'backchannel') - at;
        assert.ok(took < 1500, `it took ${took} ms from the click at the provider`);
      }
      for (const page of [pages.grace, ...(bySubject ? [] : [pages.phone])]) await going(page);

      assert.deepEqual(await world.session(pages.second), {
        status: 200, authenticated: false, reason: 'backchannel', login_url: '/bff/login',
      });
      assert.equal((await world.replay(cookies.ada)).reason, 'backchannel');
      assert.equal((await world.replay(cookies.phone)).status, bySubject ? 401 : 200);
      assert.deepEqual(world.provider.untold, []);
      assert.equal(world.provider.told.length, 1);
      assert.ok(world.gateway.events('backchannel_logout').length >= 1);
      await Promise.all([ada, adasPhone, grace].map((visitor) => visitor.leave()));
    });
  });
}

describe('in one browser', () => {
  let world;
  before(async () => { world = await World.start({ accessTTL: 60 }); });
  after(() => world?.stop());

  test('a logout in one tab ends what the other has open, within a second', async () => {
    const visitor = await world.arrive();
    const page = await world.login(visitor);
    const other = await visitor.open();
    await other.goto(`${world.origin}/app/other`);
    await attend(other);
    const at = Date.now();
    await page.evaluate(() => fetch('/bff/logout', { method: 'POST', headers: { 'X-CSRF': '1' } }));
    const took = await allOver(other, 'logout') - at;
    assert.ok(took < 1000, `it took ${took} ms`);
    assert.deepEqual((await visitor.cookies(world.origin)).map(({ name }) => name).filter((name) => name === 'sessiongate'), []);
    await visitor.leave();
  });

  test('a new login ends what the former session had open, as replaced', async () => {
    const visitor = await world.arrive();
    const page = await world.login(visitor);
    await attend(page);
    const other = await visitor.open();
    await other.goto(`${world.origin}/bff/login?prompt=login&returnUrl=/app/again`);
    await world.fillIn(other);
    await world.arrived(other, '/app/again');
    await allOver(page, 'replaced');
    assert.equal((await world.session(other)).authenticated, true);
    await visitor.leave();
  });

  test('a user ends another device from the list, and it alone', async () => {
    const [laptop, phone] = [await world.arrive(), await world.arrive()];
    const [here, there] = [await world.login(laptop, 'grace'), await world.login(phone, 'grace')];
    await attend(there);
    const list = async (page) => (await world.api(page, '/bff/sessions')).sessions;
    const other = (await list(here)).filter(({ current }) => !current);
    assert.equal(other.length, 1);
    assert.match(other[0].user_agent, /Chrome/);
    assert.equal(other[0].address, '127.0.0.1');
    const status = await here.evaluate(async (id) => {
      const answer = await fetch(`/bff/sessions/${id}`, { method: 'DELETE', headers: { 'X-CSRF': '1' } });
      return answer.status;
    }, other[0].id);
    assert.equal(status, 204);
    await allOver(there, 'revoked');
    assert.deepEqual((await list(here)).map(({ current }) => current), [true]);
    await Promise.all([laptop, phone].map((visitor) => visitor.leave()));
  });
});

describe('by the clock', () => {
  let world;
  before(async () => { world = await World.start({ accessTTL: 60, session: { idle_timeout: '4s' } }); });
  after(() => world?.stop());

  test('streams and polling are no use, and the idle end closes them', async () => {
    const visitor = await world.arrive();
    const page = await world.login(visitor);
    await attend(page);
    const at = Date.now();
    await page.evaluate(() => {
      window.polling = setInterval(() => fetch('/bff/session', { headers: { 'X-CSRF': '1' } }), 300);
    });
    const took = await allOver(page, 'idle_timeout') - at;
    assert.ok(took > 3000 && took < 5600, `idle for ${took} ms`);
    assert.equal((await world.session(page)).reason, 'idle_timeout');
    await visitor.leave();
  });
});
