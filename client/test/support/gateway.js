// What the gateway answers, as DESIGN says, and what it was asked.

const origin = 'https://app.test';

const json = (body, status = 200, headers = {}) => (
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json', ...headers } }));

// problem is an error that the gateway makes.
export const problem = (status, code, more = {}, headers = {}) => (
  json({ code, status, title: `title of ${code}`, ...more }, status, { 'x-sessiongate': '1', ...headers }));

export const unavailable = (seconds, code = 'store_unavailable') => problem(503, code, {}, { 'retry-after': String(seconds) });

export class Gateway {
  seen = []; // every request: {tab, method, url, path, csrf, body, at}

  streams = new Set(); // EventSources that are open

  opened = 0; // how many ever were

  claims = {};

  events = () => 200; // or another status

  // intercept may answer in place of what follows; undefined: it doesn't.
  intercept = () => undefined;

  #session;

  #reason = 'none';

  #logins = 0;

  constructor(clock, base = '/bff') {
    this.clock = clock;
    this.base = base;
  }

  // login begins a session; what it replaces has ended.
  login(sub = 'ada', { lifetime = 36_000, idle = 1800, access = 300 } = {}) {
    this.end('replaced');
    const { now } = this.clock;
    this.#logins += 1;
    this.#session = {
      sub, idle, sid: `sid-${this.#logins}`, ends: now + lifetime * 1000, idleEnds: now + idle * 1000, accessEnds: now + access * 1000,
    };
  }

  // end ends the session, and tells its streams.
  end(reason) {
    if (!this.#session) return;
    this.#session = undefined;
    this.#reason = reason;
    for (const stream of [...this.streams]) stream.say('session.ended', { reason });
  }

  // forget is what a logout does in its browser: without the cookie there is no reason.
  forget() { this.#reason = 'none'; }

  use() { this.#session.idleEnds = this.clock.now + this.#session.idle * 1000; }

  refreshTokens() {
    this.#session.accessEnds = this.clock.now + 300_000;
    this.say('session.refreshed');
  }

  say(type, data = {}) {
    for (const stream of [...this.streams]) stream.say(type, data);
  }

  session() {
    const login_url = `${this.base}/login`;
    this.#expire();
    const s = this.#session;
    if (!s) return { authenticated: false, reason: this.#reason, login_url };
    const seconds = (at) => Math.max(0, Math.floor((at - this.clock.now) / 1000));
    return {
      authenticated: true,
      user: { sub: s.sub, roles: ['reader'], ...this.claims },
      session: { created_at: '2026-11-22T13:00:00Z', expires_in: seconds(s.ends), idle_expires_in: seconds(s.idleEnds) },
      access_token: { expires_in: seconds(s.accessEnds) },
      login_url,
      logout_url: `${this.base}/logout?sid=${s.sid}`,
    };
  }

  #expire() {
    const { now } = this.clock;
    if (this.#session && this.#session.idleEnds <= now) this.end('idle_timeout');
    if (this.#session && this.#session.ends <= now) this.end('lifetime');
  }

  // asked counts the requests of a path below base, or elsewhere.
  asked(path, method = 'GET') {
    return this.seen.filter((entry) => entry.path === path && entry.method === method).length;
  }

  async answer(request, tab) {
    const url = new URL(request.url);
    const entry = {
      tab,
      method: request.method,
      url: request.url,
      path: url.pathname + url.search,
      csrf: request.headers.get('x-csrf'),
      body: request.method === 'GET' || request.method === 'HEAD' ? '' : await request.text(),
      at: this.clock.now,
    };
    this.seen.push(entry);
    const answer = await this.intercept(entry);
    if (answer) return answer;
    if (url.origin !== origin) return json({ elsewhere: true });
    return this.#own(url, entry) ?? this.#api(entry);
  }

  #own({ pathname }, { method, csrf }) {
    if (pathname === this.base || !pathname.startsWith(`${this.base}/`)) return undefined;
    if (csrf !== '1') return problem(403, 'csrf_header_missing');
    switch (`${method} ${pathname.slice(this.base.length)}`) {
      case 'GET /session': return json(this.session());
      case 'GET /user':
        if (!this.session().authenticated) return this.#unauthorized();
        this.use();
        return json([]);
      case 'POST /logout':
        this.end('logout');
        this.forget();
        return json({ redirect_url: `${this.base}/logout/continue` });
      default: return problem(404, 'no_route');
    }
  }

  // Routes need a session, as by default.
  #api({ csrf, method, body }) {
    if (csrf !== '1') return problem(403, 'csrf_header_missing');
    if (!this.session().authenticated) return this.#unauthorized(method);
    this.use();
    return json({ method, body });
  }

  #unauthorized(method) {
    const { reason, login_url } = this.session();
    const answer = reason === 'none'
      ? problem(401, 'session_required', { login_url }) : problem(401, 'session_ended', { reason, login_url });
    return method === 'HEAD' ? new Response(null, answer) : answer;
  }
}
