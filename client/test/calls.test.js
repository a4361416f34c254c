import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Browser } from './support/browser.js';
import { problem, unavailable } from './support/gateway.js';

// visit gives a test a browser in which ada is logged in, with one tab.
const visit = (name, run, options) => test(name, async () => {
  const browser = new Browser();
  browser.gateway.login();
  await run(browser.open(undefined, options), browser.gateway, browser);
});

// watched says what became of promises so far.
function watched(promises) {
  const fates = promises.map(() => 'open');
  promises.forEach((promise, i) => promise.then((value) => { fates[i] = value; }, (err) => { fates[i] = err; }));
  return fates;
}

const calls = (tab, n, init) => Array.from({ length: n }, (_, i) => (
  tab.bff.fetch(`/api/orders/${i}`, { method: 'POST', body: `order ${i}`, ...init })));

const loginHere = '/bff/login?returnUrl=%2Forders%3Fpage%3D2%23row-7';

visit('a call carries X-CSRF and is else like fetch', async (tab, gateway) => {
  const inputs = ['/api/a', new URL('https://app.test/api/a'), new Request('https://app.test/api/a', { headers: { 'x-mine': '2' } })];
  for (const input of inputs) {
    const response = await tab.bff.fetch(input);
    assert.equal(response.status, 200);
    const { csrf, method } = gateway.seen.at(-1);
    assert.deepEqual({ csrf, method }, { csrf: '1', method: 'GET' });
  }
  assert.equal(gateway.seen.length, 3);
});

visit('another origin gets no X-CSRF, and its answers are left alone', async (tab, gateway) => {
  gateway.intercept = () => problem(401, 'session_required');
  for (const input of ['https://other.test/x', new URL('https://other.test/x'), new Request('https://other.test/x'), 'http://app.test/x', 'https://app.test:8443/x']) {
    assert.equal((await tab.bff.fetch(input, { method: 'POST', body: 'b' })).status, 401);
    assert.equal(gateway.seen.at(-1).csrf, null, String(input.url ?? input));
  }
  gateway.intercept = () => unavailable(1);
  assert.equal((await tab.bff.fetch('https://other.test/x')).status, 503);
  assert.equal(gateway.seen.length, 6);
  assert.deepEqual(tab.went, []);
});

visit('answers of the API itself are the app\'s own business', async (tab, gateway) => {
  for (const status of [401, 503, 500, 403]) {
    gateway.intercept = () => new Response('mine', { status, headers: { 'retry-after': '1' } });
    const response = await tab.bff.fetch('/api/a', { login: 'popup' });
    assert.equal(`${response.status} ${await response.text()}`, `${status} mine`);
  }
  assert.equal(gateway.seen.length, 4);
  assert.deepEqual([tab.went, tab.popups], [[], []]);
});

visit('other refusals of the gateway are answers', async (tab, gateway) => {
  for (const [status, code] of [[403, 'origin_denied'], [404, 'no_route'], [429, 'too_many_requests'], [502, 'upstream_unreachable']]) {
    gateway.intercept = () => problem(status, code, {}, { 'retry-after': '1' });
    assert.equal((await (await tab.bff.fetch('/api/a', { login: 'popup' })).json()).code, code);
  }
  assert.equal(gateway.seen.length, 4);
  assert.deepEqual([tab.went, tab.popups], [[], []]);
});

visit('twenty calls of an ended session cause one login, which comes back with path, query and fragment', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 20));
  await browser.pass(20);
  assert.deepEqual(tab.went, [loginHere]);
  assert.deepEqual(fates, Array(20).fill('open'));
  assert.equal(gateway.seen.length, 20);
  calls(tab, 1);
  await browser.pass(1);
  assert.deepEqual(tab.went, [loginHere], 'a later call navigates again');
});

visit('an anonymous user\'s call logs in as well', async (tab, gateway, browser) => {
  gateway.end('x');
  gateway.forget();
  watched(calls(tab, 1));
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);
});

visit('who does not go to the login, or comes back from it, has an answer', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 2));
  await browser.pass(31); // a dialog asked whether to leave the page, and somebody stayed
  assert.deepEqual(fates.map(({ status }) => status), [401, 401]);
  const [fate] = [watched(calls(tab, 1))];
  await browser.settle();
  assert.equal(tab.went.length, 2);
  tab.comeBack(); // by the back button
  await browser.settle();
  assert.equal(fate[0].status, 401);
  assert.equal(tab.storage.size, 0, 'the mark of a login stays for the next load');

  const later = watched(calls(tab, 1));
  await browser.settle();
  gateway.login();
  tab.comeBack(); // after a login in another tab
  await browser.settle();
  assert.equal(later[0].status, 200);

  const { length } = tab.went;
  gateway.intercept = ({ path }) => (path.startsWith('/api') ? problem(401, 'session_required') : undefined);
  const never = watched(calls(tab, 1));
  await browser.settle();
  tab.comeBack();
  await browser.settle();
  assert.deepEqual([never[0].status, tab.went.length], [401, length + 1], 'a second login for one call');
});

visit('"none" logs nobody in', async (tab, gateway) => {
  gateway.end('revoked');
  const response = await tab.bff.fetch('/api/a', { login: 'none' });
  assert.equal(response.status, 401);
  assert.equal((await response.json()).reason, 'revoked');
  assert.deepEqual([gateway.seen.length, tab.went, tab.popups], [1, [], []]);
});

visit('an answer without a body does not stand in the way of the login', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  watched([tab.bff.fetch('/api/a', { method: 'HEAD' })]);
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);
});

test('a page that has just come back from a login is not sent there again', async () => {
  const browser = new Browser();
  let storage = new Map();
  const before = browser.open(undefined, { storage });
  watched(calls(before, 1));
  await browser.settle();
  assert.equal(before.went.length, 1);

  const after = browser.open(undefined, { storage }); // the cookie was lost on the way
  assert.equal((await calls(after, 1)[0]).status, 401);
  storage = new Map(storage);
  assert.deepEqual(after.went, []);
  await browser.pass(31);
  watched(calls(after, 1));
  await browser.settle();
  assert.equal(after.went.length, 1, 'half a minute later that is no loop');

  const reloaded = browser.open(undefined, { storage });
  watched(calls(reloaded, 1));
  await browser.settle();
  assert.equal(reloaded.went.length, 1, 'a page that was loaded again did not come from there');

  const another = browser.open();
  watched(calls(another, 1));
  await browser.settle();
  assert.equal(another.went.length, 1, 'the guard is of one tab');
});

test('a tab in the background waits for its user', async () => {
  const browser = new Browser();
  const tab = browser.open(undefined, { hidden: true });
  const fates = watched(calls(tab, 3));
  await browser.pass(3600);
  assert.deepEqual([tab.went, fates], [[], ['open', 'open', 'open']]);
  tab.show();
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);

  const other = browser.open(undefined, { hidden: true });
  const replayed = watched(calls(other, 3));
  await browser.settle();
  browser.gateway.login();
  other.show();
  await browser.settle();
  assert.deepEqual(other.went, []);
  assert.deepEqual(replayed.map(({ status }) => status), [200, 200, 200]);
});

test('addresses that the gateway would not return to are cut', async () => {
  const long = 'x'.repeat(1100);
  for (const [url, want] of [
    ['https://app.test/a?b=c%2Fd+e#f', '/a?b=c%2Fd+e#f'],
    ['https://app.test/a?b=c\\d#e\\f', '/a?b=c%5Cd#e%5Cf'],
    [`https://app.test/a#${long}`, '/a'],
    [`https://app.test/a?${long}`, '/a'],
  ]) {
    const browser = new Browser();
    const tab = browser.open(url);
    watched(calls(tab, 1));
    await browser.settle();
    assert.equal(new URL(tab.went[0], 'https://app.test').searchParams.get('returnUrl'), want);
  }
});

// ---- popups

visit('after a login in a popup every call is sent again once, with its body', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 20, { login: 'popup' }));
  await browser.pass(2);
  const [popup] = tab.popups;
  assert.equal(tab.popups.length, 1);
  assert.equal(popup.url, '/bff/login?returnUrl=%2Forders%3Fpage%3D2%23sessiongate-login');
  assert.deepEqual(fates, Array(20).fill('open'));
  gateway.login();
  popup.goTo('https://app.test/orders?page=2');
  await browser.pass(1);
  assert.equal(popup.closed, true);
  assert.deepEqual(await Promise.all(fates.map((response) => response.json())),
    Array.from({ length: 20 }, (_, i) => ({ method: 'POST', body: `order ${i}` })));
  for (let i = 0; i < 20; i += 1) assert.equal(gateway.asked(`/api/orders/${i}`, 'POST'), 2);
  assert.deepEqual(tab.went, []);
});

visit('bodies of every kind are sent again', async (tab, gateway, browser) => {
  const form = new FormData();
  form.set('file', new Blob(['a file']), 'a.txt');
  const bodies = {
    text: 'täxt', blob: new Blob(['a blob']), bytes: new Uint8Array([1, 2, 3]), query: new URLSearchParams('a=b'), form,
  };
  const sent = Object.entries(bodies).map(([kind, body]) => tab.bff.fetch(`/api/${kind}`, { method: 'PUT', body, login: 'popup' }));
  sent.push(tab.bff.fetch(new Request('https://app.test/api/request', { method: 'PUT', body: 'of a Request' }), { login: 'popup' }));
  gateway.end('idle_timeout');
  await browser.settle();
  gateway.login();
  await browser.pass(2);
  for (const response of await Promise.all(sent)) assert.equal(response.status, 200);
  for (const kind of [...Object.keys(bodies), 'request']) {
    const [first, second, ...more] = gateway.seen.filter(({ path }) => path === `/api/${kind}`).map(({ body }) => body);
    assert.ok(first.length > 0 && more.length === 0, kind);
    assert.equal(second, first, kind);
  }
});

visit('a stream cannot be sent again: the caller is told', async (tab, gateway, browser) => {
  const stream = () => new ReadableStream({ start(controller) { controller.enqueue(Buffer.from('once')); controller.close(); } });
  const send = (login) => tab.bff.fetch('/api/a', { method: 'POST', body: stream(), duplex: 'half', login });
  assert.equal((await send('popup')).status, 200);
  gateway.end('idle_timeout');
  const fates = watched([send('popup')]);
  await browser.settle();
  gateway.login();
  await browser.pass(2);
  const { name, code, status } = fates[0];
  assert.deepEqual({ name, code, status }, { name: 'BffError', code: 'not_replayable', status: 401 });
  gateway.intercept = () => unavailable(1);
  assert.equal((await send('popup')).status, 503);
});

visit('who is refused after a login in a popup has the second answer', async (tab, gateway, browser) => {
  gateway.intercept = ({ path }) => (path.startsWith('/api') ? problem(401, 'session_required', { n: gateway.seen.length }) : undefined);
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 1, { login: 'popup' }));
  await browser.settle();
  gateway.login();
  await browser.pass(2);
  assert.equal((await fates[0].json()).n, 3); // call, session, call
  assert.equal(tab.popups.length, 1);
  assert.equal((await calls(tab, 1, { login: 'popup' })[0]).status, 401);
  assert.deepEqual([tab.popups.length, tab.went], [1, []], 'a second login at once');
});

visit('who closes the popup has the first answer', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 5, { login: 'popup' }));
  await browser.pass(60);
  tab.popups[0].close();
  await browser.pass(4);
  assert.deepEqual(await Promise.all(fates.map(async (response) => (await response.json()).reason)), Array(5).fill('idle_timeout'));
  assert.deepEqual([tab.popups.length, tab.went], [1, []]);
});

visit('who comes back from the provider without a login has the first answer', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  const fates = watched(calls(tab, 1, { login: 'popup' }));
  await browser.settle();
  const [popup] = tab.popups;
  popup.goTo('about:blank');
  await browser.pass(1);
  popup.goTo('https://app.test/bff/callback?error=access_denied'); // a page that says so
  await browser.pass(5);
  assert.equal(popup.closed, false);
  popup.goTo('https://app.test/');
  await browser.pass(1);
  assert.deepEqual([popup.closed, fates[0].status], [true, 401]);
});

visit('where popups are blocked the page goes to the login', async (tab, gateway, browser) => {
  tab.blocksPopups = true;
  gateway.end('idle_timeout');
  watched(calls(tab, 5, { login: 'popup' }));
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);
});

visit('a popup that the provider cut off is waited for, five minutes', async (tab, gateway, browser) => {
  for (const comes of [true, false]) {
    gateway.end('idle_timeout');
    const n = tab.popups.length;
    const fates = watched(calls(tab, 1, { login: 'popup' }));
    await browser.pass(2);
    tab.focused = false;
    tab.popups[n].sever();
    await browser.pass(290);
    assert.equal(fates[0], 'open');
    if (comes) gateway.login();
    await browser.pass(comes ? 2 : 12);
    assert.equal(fates[0].status, comes ? 200 : 401);
    tab.focused = true;
    await browser.pass(31); // or the guard against loops is in the way
  }
});

visit('an answer that was on its way during the login causes no second one', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  let answer;
  gateway.intercept = ({ path }) => (path === '/api/slow' && !answer ? new Promise((resolve) => { answer = resolve; }) : undefined);
  const slow = watched([tab.bff.fetch('/api/slow', { method: 'POST', body: 'b', login: 'popup' })]);
  const fast = watched(calls(tab, 1, { login: 'popup' }));
  await browser.settle();
  gateway.login();
  await browser.pass(2);
  assert.equal(fast[0].status, 200);
  answer(problem(401, 'session_ended', { reason: 'idle_timeout' }));
  await browser.settle();
  assert.equal(slow[0].status, 200);
  assert.equal(tab.popups.length, 1);
});

visit('a login that was asked for', async (tab, gateway, browser) => {
  watched([tab.bff.login({ returnUrl: '/a?b#c', params: { prompt: 'login' } })]);
  await browser.settle();
  assert.deepEqual(tab.went, ['/bff/login?prompt=login&returnUrl=%2Fa%3Fb%23c']);

  // In a popup, by somebody who is logged in already: the old session is no sign of a login.
  const other = browser.open();
  await other.bff.session();
  const fates = watched([other.bff.login({ popup: true, returnUrl: '/landing#x' })]);
  await browser.pass(10);
  assert.equal(other.popups[0].url, '/bff/login?returnUrl=%2Flanding%23sessiongate-login');
  assert.equal(fates[0], 'open');
  gateway.login('grace');
  await browser.pass(2);
  assert.deepEqual([fates[0], other.popups[0].closed], [true, true]);

  const closed = watched([other.bff.login({ popup: true })]);
  await browser.settle();
  other.popups[1].close();
  await browser.pass(5);
  assert.equal(closed[0], false);
});

visit('a login that somebody asks for waits for no other', async (tab, gateway, browser) => {
  gateway.end('idle_timeout');
  watched(calls(tab, 1));
  await browser.pass(15); // and a dialog asks whether to leave the page
  watched([tab.bff.login({ returnUrl: '/a' })]);
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere, '/bff/login?returnUrl=%2Fa']);
  await browser.pass(20); // the first is over
  watched(calls(tab, 1));
  await browser.pass(5);
  assert.equal(tab.went.length, 2, 'a call turned the page round');
});

visit('a full sessionStorage prevents no login', async (tab, gateway, browser) => {
  tab.storage.set = () => { throw new DOMException('full', 'QuotaExceededError'); };
  gateway.end('idle_timeout');
  watched(calls(tab, 1));
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);
});

test('nor does one that is forbidden', async () => {
  const browser = new Browser();
  const tab = browser.open(undefined, { without: ['sessionStorage'] });
  watched(calls(tab, 1));
  await browser.settle();
  assert.deepEqual(tab.went, [loginHere]);
});

test('the page that a popup comes back to tells the others and closes', async () => {
  const browser = new Browser();
  const opener = browser.open();
  const { told } = opener.follow();
  await browser.settle();
  assert.equal(told[0].authenticated, false);
  browser.gateway.login();
  const landing = browser.open('https://app.test/orders?page=2#sessiongate-login');
  await browser.settle();
  assert.equal(told.at(-1).authenticated, true);
  assert.equal(landing.closed, true);
  assert.equal(landing.url.href, 'https://app.test/orders?page=2');
  assert.equal(landing.state, 'of the app');
});

// ---- 503

visit('503 is waited for as long as it says, and the call repeated with its body', async (tab, gateway, browser) => {
  let left = 2;
  gateway.intercept = ({ path }) => (path.startsWith('/api') && left-- > 0 ? unavailable(7) : undefined);
  const began = browser.clock.now;
  const fates = watched(calls(tab, 1));
  await browser.pass(6.9);
  assert.equal(gateway.seen.length, 1);
  await browser.pass(10);
  assert.deepEqual(await fates[0].json(), { method: 'POST', body: 'order 0' });
  assert.deepEqual(gateway.seen.map(({ at }) => (at - began) / 1000), [0, 7, 14]);
});

visit('503 is waited for three times, then it is the answer', async (tab, gateway, browser) => {
  gateway.intercept = () => unavailable(2, 'refresh_unavailable');
  const fates = watched(calls(tab, 1));
  await browser.pass(100);
  assert.equal((await fates[0].json()).code, 'refresh_unavailable');
  assert.equal(gateway.seen.length, 4);
});

visit('503 for more than a minute is the answer at once', async (tab, gateway) => {
  gateway.intercept = () => unavailable(61);
  assert.equal((await calls(tab, 1)[0]).status, 503);
  assert.equal(gateway.seen.length, 1);
});

visit('an aborted call neither waits nor is repeated', async (tab, gateway, browser) => {
  const abort = new AbortController();
  gateway.intercept = () => unavailable(5);
  const waiting = watched(calls(tab, 1, { signal: abort.signal }));
  await browser.settle();
  gateway.intercept = () => undefined;
  gateway.end('idle_timeout');
  const login = watched([...calls(tab, 1, { signal: abort.signal, login: 'popup' }), ...calls(tab, 1, { login: 'popup' })]);
  await browser.settle();
  assert.deepEqual([...waiting, ...login], ['open', 'open', 'open']);
  abort.abort(new Error('enough'));
  await browser.settle();
  assert.deepEqual([waiting[0].message, login[0].message, login[1]], ['enough', 'enough', 'open']);
  gateway.login();
  await browser.pass(20);
  assert.equal(login[1].status, 200);
  assert.equal(gateway.asked('/api/orders/0', 'POST'), 4); // 503, 401, and the other's 401 and 200
});

visit('what the network does is fetch\'s own error', async (tab, gateway) => {
  const fault = new TypeError('Failed to fetch');
  gateway.intercept = () => { throw fault; };
  await assert.rejects(calls(tab, 1)[0], fault);
  assert.equal(gateway.seen.length, 1);
});
