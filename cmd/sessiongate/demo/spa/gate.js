// The gateway as this page sees it: its endpoints, a cookie that scripts cannot
// read, and errors with stable codes.

const kind = {
  session_required: "You are not logged in.",
  session_ended: "Your session has ended.",
  refresh_unavailable: "The login provider does not answer. Your session is safe.",
  store_unavailable: "The session store does not answer. Your session is safe.",
  provider_unavailable: "The login provider does not answer.",
  upstream_unreachable: "The API does not answer.",
  upstream_timeout: "The API takes too long.",
  csrf_header_missing: "The request came without X-CSRF.",
  origin_denied: "The request came from another site.",
  too_many_requests: "That was too fast.",
  offline: "The gateway does not answer. Was the demo ended?",
};

// Problem is an answer that is no success.
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(kind[body.code] ?? body.title ?? body.error ?? `The answer was ${status}.`);
    this.status = status;
    this.code = body.code ?? String(status);
    this.reason = body.reason;
    this.requestID = body.request_id;
    this.retryAfter = retryAfter;
  }

  static async from(response) {
    const body = await response.json().catch(() => ({}));
    return new Problem(response.status, body, Number(response.headers.get("Retry-After")) || 2);
  }

  get loggedOut() {
    return this.code === "session_required" || this.code === "session_ended";
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// call fetches with X-CSRF. A 503 of the gateway is an outage and no verdict, so
// it waits as long as it is told and asks again; onWait hears of it.
export async function call(path, { json, onWait, ...init } = {}) {
  const headers = { "X-CSRF": "1", Accept: "application/json" };
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(path, { ...init, headers }).catch(() => {
      throw new Problem(0, { code: "offline" });
    });
    if (response.ok) return response.status === 204 ? null : response.json();
    const problem = await Problem.from(response);
    if (problem.status !== 503 || attempt > 60) throw problem;
    onWait?.(problem);
    await pause(problem.retryAfter);
  }
}

// Here one asks who is logged in. Asking never extends the session.
export const sessionPath = "/bff/session";

const here = () => location.pathname + location.search + location.hash;

// loginURL returns to the page as it is, with its fragment.
export const loginURL = (base) => `${base}?returnUrl=${encodeURIComponent(here())}`;

const goodbye = "/#/goodbye";

// logoutURL is for a link: the gateway put a secret of this session into it.
export const logoutURL = (base) => `${base}&returnUrl=${encodeURIComponent(goodbye)}`;

// logout ends the session by POST and goes where the answer says. The provider's
// URL holds an ID token and stays with the gateway.
export async function logout() {
  const { redirect_url: next } = await call(`/bff/logout?returnUrl=${encodeURIComponent(goodbye)}`, { method: "POST" });
  location.assign(next);
}
