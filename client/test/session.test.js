import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Browser } from './support/browser.js';
import { problem, unavailable } from './support/gateway.js';

// visit gives a test a browser in which ada is logged in.
const visit = (name, run) => test(name, async () => {
  const browser = new Browser();
  browser.gateway.login();
  await run(browser, browser.gateway);
});

const reads = (gateway) => gateway.asked('/bff/session');

// ---- session

visit('session tells who is there, and asks once for all who want to know', async (browser, gateway) => {
  const { bff } = browser.open();
  const [a, b] = await Promise.all([bff.session(), bff.session(), bff.session()]);
  assert.deepEqual([a.user.sub, b, reads(gateway)], ['ada', a, 1]);
  await bff.session();
  assert.equal(reads(gateway), 2);
  await browser.pass(36_100);
  assert.equal(reads(gateway), 2, 'who wants no news asks for none');
});

visit('session does not throw for an anonymous user', async (browser, gateway) => {
  const { bff } = browser.open();
  gateway.end('backchannel');
  assert.deepEqual(await bff.session(), { authenticated: false, reason: 'backchannel', login_url: '/bff/login' });
});

visit('session waits while the gateway cannot say', async (browser, gateway) => {
  const { bff } = browser.open();
  gateway.intercept = () => (gateway.seen.length < 3 ? unavailable(4) : undefined);
  const me = bff.session();
  await browser.pass(8);
  assert.equal((await me).authenticated, true);

  gateway.intercept = () => { if (gateway.seen.length < 6) throw new TypeError('no network'); };
  const again = bff.session();
  await browser.pass(3);
  assert.equal((await again).authenticated, true);
});

visit('session gives up at last, and says why', async (browser, gateway) => {
  const { bff } = browser.open();
  for (const [answer, code, status, requests] of [
    [() => unavailable(3), 'store_unavailable', 503, 4],
    [() => { throw new TypeError('no network'); }, 'network', 0, 4],
    [() => new Response('<!doctype html>'), 'unexpected_answer', 200, 1], // a static server that knows no /bff
    [() => new Response('gone', { status: 502 }), 'unexpected_answer', 502, 1],
    [() => problem(400, 'ambiguous_cookie'), 'ambiguous_cookie', 400, 1],
  ]) {
    const before = gateway.seen.length;
    gateway.intercept = answer;
    const failure = bff.session().catch((err) => err);
    await browser.pass(30);
    const { name, ...rest } = await failure;
    assert.deepEqual({ name, code: rest.code, status: rest.status }, { name: 'BffError', code, status });
    assert.equal(gateway.seen.length - before, requests, code);
  }
});

// ---- onSession, one tab

visit('onSession tells at once, and then only of changes', async (browser, gateway) => {
  const { told, stop } = browser.open().follow();
  await browser.settle();
  assert.deepEqual(told.map(({ user }) => user.sub), ['ada']);
  gateway.say('session.refreshed'); // nothing is different but the time
  await browser.pass(20);
  gateway.say('session.refreshed');
  await browser.pass(20);
  assert.equal(told.length, 1);
  gateway.refreshTokens();
  await browser.settle();
  assert.deepEqual([told.length, told[1].access_token.expires_in], [2, 300]);
  gateway.login('grace');
  await browser.pass(2);
  assert.deepEqual([told.length, told[2].user.sub], [3, 'grace']);
  stop();
  gateway.end('revoked');
  await browser.pass(100);
  assert.equal(told.length, 3);
});

visit('an access token that has run out is no news every time, but other claims are', async (browser, gateway) => {
  gateway.login('ada', { access: 45 });
  const { told } = browser.open(undefined, { without: ['EventSource'] }).follow();
  await browser.pass(300);
  assert.equal(told.length, 1);
  for (const [claims, n] of [[{ email: 'a@b.test' }, 2], [{ email: 'c@b.test' }, 3], [{ email: 'c@b.test', groups: [{ id: 1 }] }, 4],
    [{ email: 'c@b.test', groups: [{ id: 2 }] }, 5], [{ email: 'c@b.test', groups: [{ id: 2 }] }, 5], [{}, 6], [{ email: null }, 7]]) {
    gateway.claims = claims;
    await browser.pass(30);
    assert.equal(told.length, n);
  }
});

visit('the end of a session is told without another request', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.settle();
  for (const reason of ['backchannel', 'revoked', 'frontchannel', 'refresh_rejected']) {
    const before = gateway.seen.length;
    gateway.end(reason);
    await browser.settle();
    assert.deepEqual({ ...told.at(-1) }, { authenticated: false, reason, login_url: '/bff/login' });
    assert.equal(gateway.seen.length, before);
    gateway.login();
    await tab.bff.session();
    await browser.settle();
    assert.equal(told.at(-1).authenticated, true);
    assert.equal(tab.streams, 1, 'the new session has no stream');
  }
  assert.equal(told.length, 9);
});

visit('a session that was replaced may have become another user\'s', async (browser, gateway) => {
  const { told } = browser.open().follow();
  await browser.settle();
  gateway.end('replaced'); // the callback's answer, with the cookie, is not there yet
  await browser.pass(0.5);
  gateway.login('grace');
  await browser.pass(1);
  assert.deepEqual(told.map(({ user }) => user?.sub), ['ada', 'grace']);
  gateway.end('replaced'); // by a login elsewhere: max_per_user
  await browser.pass(1);
  assert.equal(told.at(-1).reason, 'replaced');
});

visit('session.expiring brings what is left, and staying is told, too', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.pass(1735);
  assert.equal(told.length, 1);
  await browser.pass(5.5);
  assert.equal(told.length, 2);
  assert.ok(told[1].session.idle_expires_in <= 60);
  const before = gateway.seen.length;
  const me = await tab.bff.stay();
  assert.deepEqual(gateway.seen.slice(before).map(({ path }) => path), ['/bff/user', '/bff/session']);
  await browser.settle();
  assert.deepEqual([me.session.idle_expires_in, told.length, told[2].session.idle_expires_in], [1800, 3, 1800]);
});

visit('the expiry that the stream tells is told once, and at its end the session is looked for', async (browser, gateway) => {
  const { told } = browser.open().follow();
  await browser.pass(1741 - 3);
  gateway.say('session.expiring', { expires_in: 62 }); // it is not so soon after all
  await browser.pass(2);
  gateway.say('session.expiring', { expires_in: 60 });
  await browser.pass(40);
  gateway.say('session.expiring', { expires_in: 20 });
  await browser.settle();
  assert.equal(told.length, 2);
  await browser.pass(30);
  assert.deepEqual([told.length, told[2].reason], [3, 'idle_timeout']);
});

visit('use elsewhere in the last minute is noticed', async (browser, gateway) => {
  const { told } = browser.open().follow();
  await browser.pass(1750);
  assert.equal(told.length, 2);
  gateway.use();
  await browser.pass(6);
  assert.equal(told.length, 3);
  assert.ok(told[2].session.idle_expires_in > 1700);
});

visit('a 401 tells as well, and the reason outlives the cookie', async (browser, gateway) => {
  const tab = browser.open(undefined, { without: ['EventSource'] });
  const { told } = tab.follow();
  await browser.settle();
  gateway.end('lifetime');
  await tab.bff.fetch('/api/a', { login: 'none' });
  gateway.forget();
  await tab.bff.fetch('/api/a', { login: 'none' });
  await tab.bff.session();
  await browser.settle();
  assert.deepEqual(told.map(({ reason }) => reason), [undefined, 'lifetime']);
});

visit('an answer that was overtaken is not believed', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.pass(1);
  let answer;
  const old = gateway.session();
  gateway.intercept = () => new Promise((resolve) => { answer = resolve; });
  tab.bff.session();
  await browser.pass(1);
  gateway.intercept = () => undefined;
  gateway.end('revoked');
  await browser.settle();
  answer(new Response(JSON.stringify(old)));
  await browser.settle();
  assert.deepEqual(told.map(({ reason }) => reason), [undefined, 'revoked']);
});

visit('a clock that is put back is no reason to believe nothing any more', async (browser, gateway) => {
  const { told } = browser.open().follow();
  await browser.settle();
  browser.clock.now -= 3_600_000;
  gateway.end('revoked');
  await browser.settle();
  assert.equal(told.at(-1).reason, 'revoked');
});

visit('who comes late is told what is true now', async (browser, gateway) => {
  const tab = browser.open();
  tab.follow();
  await browser.pass(600);
  const late = tab.follow();
  const later = tab.follow();
  await browser.settle();
  assert.deepEqual([late.told.length, later.told.length, late.last.session.idle_expires_in], [1, 1, 1200]);
  const before = reads(gateway);
  const soon = tab.follow();
  await browser.settle();
  assert.deepEqual([soon.told.length, reads(gateway)], [1, before]);
});

visit('who asks and listens at once asks once', async (browser, gateway) => {
  const tab = browser.open(undefined, { without: ['EventSource'] });
  const me = tab.bff.session();
  const { told } = tab.follow();
  assert.equal((await me).authenticated, true);
  await browser.settle();
  assert.deepEqual([told.length, reads(gateway)], [1, 1]);
});

visit('who stops listening is told nothing more, not even what is on its way', async (browser, gateway) => {
  const tab = browser.open();
  tab.bff.onSession((me) => !me.authenticated && second.stop());
  const second = tab.follow();
  await browser.settle();
  gateway.end('revoked');
  await browser.settle();
  assert.equal(second.told.length, 1);
});

visit('a tab in the background is told that the session expires, for others that are seen', async (browser, gateway) => {
  const [one, two] = [browser.open(), browser.open()];
  one.follow();
  const { told } = two.follow();
  await browser.settle();
  assert.equal(two.streams, 1);
  one.hide();
  two.hide();
  await browser.pass(1745);
  assert.equal(told.length, 1);
  gateway.say('session.expiring', { expires_in: 55 });
  await browser.settle();
  assert.equal(told.length, 2);
});

visit('a listener that throws disturbs nobody', async (browser, gateway) => {
  const tab = browser.open();
  tab.bff.onSession(() => { throw new Error('mine'); });
  const { told } = tab.follow();
  await browser.settle();
  gateway.end('revoked');
  await browser.settle();
  assert.equal(told.length, 2);
  assert.deepEqual(tab.faults.map(({ message }) => message), ['mine', 'mine']);
});

visit('onSession comes through an outage', async (browser, gateway) => {
  gateway.intercept = () => { throw new TypeError('no network'); };
  const { told } = browser.open().follow();
  await browser.pass(300);
  assert.equal(told.length, 0);
  assert.ok(gateway.seen.length <= 40, `${gateway.seen.length} requests in five minutes`);
  gateway.intercept = () => undefined;
  await browser.pass(40);
  assert.equal(told.length, 1);
});

// ---- tabs

const ten = (browser) => Array.from({ length: 10 }, () => {
  const tab = browser.open();
  return { tab, ...tab.follow() };
});

visit('of ten tabs one holds the stream, and all are told', async (browser, gateway) => {
  const tabs = ten(browser);
  await browser.settle();
  assert.equal(gateway.streams.size, 1);
  gateway.end('backchannel');
  await browser.settle();
  for (const { told } of tabs) assert.deepEqual(told.map(({ reason }) => reason), [undefined, 'backchannel']);
  assert.equal(gateway.streams.size, 0);
  // The first tab told the nine others, or they had asked themselves; then the one with the stream did. Nobody said it again.
  assert.ok(browser.posted <= 11, `${browser.posted} messages`);
  const { posted } = browser;
  await tabs[0].tab.bff.session();
  assert.equal(browser.posted, posted);
});

visit('when the tab with the stream is closed another takes over and looks', async (browser, gateway) => {
  const tabs = ten(browser);
  for (let left = 10; left > 1; left -= 1) {
    await browser.settle();
    assert.equal(gateway.streams.size, 1);
    const leader = tabs.findIndex(({ tab }) => tab.streams === 1);
    const [{ tab }] = tabs.splice(leader, 1);
    const before = reads(gateway);
    tab.shut();
    await browser.settle();
    assert.equal(gateway.streams.size, 1);
    assert.ok(reads(gateway) > before, 'the new leader did not look');
  }
  gateway.end('revoked');
  await browser.settle();
  assert.equal(tabs[0].told.at(-1).reason, 'revoked');
});

visit('what ended while nobody listened is found at the takeover', async (browser, gateway) => {
  const [one, two] = [browser.open(), browser.open()];
  const followers = [one.follow(), two.follow()];
  await browser.settle();
  const leader = one.streams ? one : two;
  gateway.streams.clear();
  gateway.end('revoked');
  leader.shut();
  await browser.settle();
  assert.equal(followers[leader === one ? 1 : 0].last.reason, 'revoked');
});

visit('the tab that comes to the front takes the stream: one in the background may be frozen', async (browser, gateway) => {
  const [one, two] = [browser.open(), browser.open()];
  one.follow();
  await browser.settle();
  assert.equal(one.streams, 1);
  const { told } = two.follow();
  await browser.settle();
  assert.deepEqual([one.streams, two.streams], [0, 1]);
  two.hide();
  one.hide();
  one.show();
  await browser.settle();
  assert.deepEqual([one.streams, two.streams], [1, 0]);
  one.shut(); // two waits for its turn
  await browser.settle();
  assert.equal(two.streams, 1);
  gateway.end('revoked');
  await browser.settle();
  assert.equal(told.at(-1).reason, 'revoked');
});

visit('a tab that opens in the background leaves the stream where it is', async (browser) => {
  const [one, two] = [browser.open(), browser.open(undefined, { hidden: true })];
  one.follow();
  await browser.settle();
  const { told } = two.follow();
  await browser.settle();
  assert.deepEqual([one.streams, two.streams, told.length], [1, 0, 1]);
});

visit('logout ends the session for all tabs and goes to the provider', async (browser, gateway) => {
  const [one, two, three] = [browser.open(), browser.open(), browser.open(undefined, { without: ['EventSource'] })];
  const followers = [one, two, three].map((tab) => tab.follow());
  await browser.settle();
  one.bff.logout({ returnUrl: '/bye?x=1' });
  await browser.settle();
  assert.equal(gateway.asked('/bff/logout?returnUrl=%2Fbye%3Fx%3D1', 'POST'), 1);
  assert.deepEqual(one.went, ['/bff/logout/continue']);
  for (const { told } of followers) assert.deepEqual(told.map(({ reason }) => reason), [undefined, 'logout']);

  // Calls that fail while the page goes away don't turn it round.
  let answered = false;
  one.bff.fetch('/api/a').then(() => { answered = true; });
  await browser.pass(10);
  assert.deepEqual([one.went.length, answered], [1, false]);
  // And the reason stays when the cookie is gone.
  two.hide();
  await browser.pass(10);
  two.show();
  await browser.settle();
  assert.equal(followers[1].last.reason, 'logout');
});

visit('a logout that the gateway cannot do is an error, and nobody is told of one', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.settle();
  gateway.intercept = ({ method }) => (method === 'POST' ? unavailable(1) : undefined);
  const failure = tab.bff.logout().catch((err) => err);
  await browser.pass(5);
  assert.equal((await failure).code, 'store_unavailable');
  assert.deepEqual([told.length, tab.went], [1, []]);
});

visit('a login in one tab is known in the others, as another user\'s is', async (browser, gateway) => {
  gateway.end('x');
  gateway.forget();
  const [one, two] = [browser.open(), browser.open()];
  const { told } = one.follow();
  await browser.settle();
  assert.equal(told[0].reason, 'none');
  gateway.login('ada');
  await two.bff.session();
  await browser.settle();
  assert.equal(told[1].user.sub, 'ada');
  assert.equal(gateway.streams.size, 1, 'nobody listens to the new session');
  gateway.login('grace');
  await browser.pass(2);
  assert.deepEqual(told.map(({ user }) => user?.sub), [undefined, 'ada', 'grace']);
});

visit('the stream is open as long as somebody listens', async (browser, gateway) => {
  const tab = browser.open();
  const [one, two] = [tab.follow(), tab.follow()];
  await browser.settle();
  one.stop();
  one.stop();
  await browser.settle();
  assert.equal(tab.streams, 1);
  two.stop();
  await browser.settle();
  assert.deepEqual([tab.streams, browser.locks.held], [0, 0]);
  const before = reads(gateway);
  await browser.pass(10);
  tab.hide();
  tab.show();
  await browser.settle();
  assert.deepEqual([tab.streams, browser.locks.held, reads(gateway)], [0, 0, before]);
});

// ---- pages that sleep

visit('a page in the back-forward cache holds nothing, and looks when it is back', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.settle();
  tab.leave();
  await browser.settle();
  assert.deepEqual([gateway.streams.size, browser.locks.held, browser.channels.size], [0, 0, 0]);
  gateway.end('revoked');
  const before = reads(gateway);
  await browser.pass(4000);
  assert.equal(reads(gateway), before);
  tab.comeBack();
  await browser.settle();
  assert.equal(told.at(-1).reason, 'revoked');
  gateway.login();
  await tab.bff.session();
  await browser.settle();
  assert.equal(tab.streams, 1);
});

visit('a page that is back from there hears the others again', async (browser) => {
  const [one, two] = [browser.open(undefined, { without: ['EventSource'] }), browser.open()];
  const { told } = one.follow();
  await browser.settle();
  one.leave();
  one.comeBack();
  two.bff.logout();
  await browser.settle();
  assert.equal(told.at(-1).reason, 'logout');
});

visit('a tab that is seen again looks, unless it has just looked', async (browser, gateway) => {
  const tab = browser.open();
  tab.follow();
  await browser.settle();
  const before = reads(gateway);
  tab.hide();
  await browser.pass(3);
  tab.show();
  await browser.settle();
  assert.equal(reads(gateway), before);
  await browser.pass(3);
  tab.hide();
  await browser.settle();
  assert.equal(reads(gateway), before);
  tab.show();
  await browser.settle();
  assert.equal(reads(gateway), before + 1);
});

// ---- without a stream

for (const missing of ['EventSource', 'locks', 'BroadcastChannel']) {
  visit(`without ${missing} it asks every half minute while it is seen`, async (browser, gateway) => {
    const tab = browser.open(undefined, { without: [missing] });
    const { told, stop } = tab.follow();
    await browser.pass(301);
    assert.equal(reads(gateway), 11);
    assert.equal(gateway.opened, 0);
    tab.hide();
    await browser.pass(600);
    assert.equal(reads(gateway), 11);
    tab.show();
    await browser.settle();
    assert.equal(reads(gateway), 12);
    tab.hide();
    await browser.pass(1);
    tab.show();
    await browser.pass(31);
    assert.equal(reads(gateway), 13);
    gateway.end('revoked');
    await browser.pass(30);
    assert.equal(told.at(-1).reason, 'revoked');
    stop();
    await browser.pass(300);
    assert.equal(reads(gateway), 14);
  });
}

visit('a hidden tab without a stream looks at the end of the session', async (browser, gateway) => {
  const tab = browser.open(undefined, { without: ['EventSource'], hidden: true });
  const { told } = tab.follow();
  await browser.pass(1799);
  assert.equal(reads(gateway), 1);
  await browser.pass(10);
  assert.deepEqual([told.at(-1).reason, reads(gateway)], ['idle_timeout', 2]);
});

visit('where the stream is refused it asks, and tries the stream again less and less', async (browser, gateway) => {
  gateway.login('ada', { idle: 36_000 });
  gateway.events = () => 429;
  const tab = browser.open();
  const { told } = tab.follow();
  const tries = async (seconds) => {
    const before = gateway.opened;
    await browser.pass(seconds);
    return gateway.opened - before;
  };
  assert.ok(await tries(600) <= 5);
  assert.ok(gateway.opened >= 4);
  const before = reads(gateway);
  const later = await tries(3000);
  assert.ok(later <= 11 && later >= 9, `${later} tries`);
  assert.ok(reads(gateway) - before >= 99);
  gateway.end('revoked');
  await browser.pass(30);
  assert.equal(told.at(-1).reason, 'revoked');

  gateway.events = () => 200;
  gateway.login();
  await tab.bff.session();
  await browser.settle();
  assert.equal(tab.streams, 1, 'a new session is a new try');

  // Now that one was open the next refusal is the first again.
  gateway.events = () => 429;
  const [stream] = gateway.streams;
  stream.drop();
  stream.connect();
  await browser.settle();
  assert.equal(tab.streams, 0);
  assert.equal(await tries(70), 1);
});

visit('a stream that breaks off connects again and looks', async (browser, gateway) => {
  const tab = browser.open();
  const { told } = tab.follow();
  await browser.settle();
  const [stream] = gateway.streams;
  stream.drop();
  await browser.pass(100);
  assert.equal(gateway.opened, 1);
  gateway.end('revoked');
  gateway.login('grace');
  stream.connect();
  await browser.settle();
  assert.equal(told.at(-1).user.sub, 'grace');
});

visit('a very long session is no reason to hurry', async (browser, gateway) => {
  gateway.login('ada', { lifetime: 400 * 86_400, idle: 100 * 86_400 });
  browser.open().follow();
  await browser.pass(3600);
  assert.ok(reads(gateway) <= 3);
});

// ---- where the gateway is

for (const [module, base] of [
  ['https://app.test/bff/client.js', '/bff'],
  ['https://app.test/auth/v2/client.js', '/auth/v2'],
  ['https://app.test/client.js', ''],
  ['https://app.test/assets/index-B1x9.js', '/bff'],
  ['https://app.test/node_modules/sessiongate-client/client.js', '/bff'],
  ['https://cdn.test/auth/client.js', '/bff'],
  ['file:///src/auth/client.js', '/bff'],
]) {
  visit(`loaded from ${module} it asks ${base || '/'}`, async (browser, gateway) => {
    gateway.base = base;
    const { bff, createBff } = browser.open(undefined, { module });
    await bff.session();
    assert.equal(gateway.seen[0].path, `${base}/session`);
    gateway.base = '/mine';
    await createBff({ base: '/mine' }).session();
    assert.equal(gateway.seen[1].path, '/mine/session');
  });
}

visit('in a worker it asks and calls, but cannot log in', async (browser, gateway) => {
  const { bff } = browser.open(undefined, { without: ['document', 'history', 'sessionStorage', 'open', 'close'] });
  assert.equal((await bff.session()).authenticated, true);
  gateway.end('revoked');
  assert.equal((await bff.fetch('/api/a', { login: 'none' })).status, 401);
  assert.equal((await bff.session()).reason, 'revoked');
});

test('it can be imported where there is no browser', async () => {
  const { bff, createBff } = await import('../client.js');
  assert.deepEqual(Object.keys(bff).sort(), ['fetch', 'login', 'logout', 'onSession', 'session', 'stay']);
  assert.equal(typeof createBff, 'function');
});

test('the types name what there is', async () => {
  const types = readFileSync(new URL('../client.d.ts', import.meta.url), 'utf8');
  const [, members] = /export interface Bff \{(.*?)\n\}/s.exec(types);
  const { bff, ...rest } = await import('../client.js');
  const named = [...members.matchAll(/^ {2}(\w+)\(/gm)].map(([, name]) => name);
  assert.deepEqual(named.sort(), Object.keys(bff).sort());
  const exported = [...types.matchAll(/^export (?:const|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(exported.sort(), ['bff', ...Object.keys(rest)].sort());
});
