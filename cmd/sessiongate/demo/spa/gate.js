// Calls by the gateway's helper, and its errors in words. The helper adds X-CSRF,
// waits where the gateway asks it to, and keeps all tabs informed.

import { bff } from "/bff/client.js";

const words = {
  session_required: "You are not logged in.",
  session_ended: "Your session has ended.",
  refresh_unavailable: "The login provider does not answer. Your session is safe.",
  store_unavailable: "The session store does not answer. Your session is safe.",
  provider_unavailable: "The login provider does not answer.",
  upstream_unreachable: "The API does not answer.",
  upstream_timeout: "The API takes too long.",
  csrf_header_missing: "The request came without X-CSRF.",
  origin_denied: "The request came from another site.",
  no_session: "That session is over already.",
  too_many_requests: "That was too fast.",
  network: "The gateway does not answer. Was the demo ended?",
};

// Problem is an answer that is no success.
class Problem extends Error {
  constructor(code, status, message) {
    super(message ?? `The answer was ${status}.`);
    this.code = code;
    this.status = status;
  }

  static async from(response) {
    const body = await response.json().catch(() => ({}));
    return new Problem(body.code ?? String(response.status), response.status, body.title ?? body.error);
  }
}

// inWords is undefined for what is a mistake of this page.
export const inWords = (problem) => (problem.code ? `${words[problem.code] ?? problem.message} (${problem.code})` : undefined);

export const loggedOut = (problem) => problem.code === "session_required" || problem.code === "session_ended";

// call returns an answer's JSON. The helper waits three times when the gateway says
// 503, which is an outage and no verdict; this page has the patience for more.
// onWait hears why.
export async function call(path, { json, onWait, ...init } = {}) {
  init.headers = { Accept: "application/json" };
  if (json !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  }
  for (let attempt = 1; ; attempt++) {
    const response = await bff.fetch(path, { ...init, login: "none" }).catch(() => {
      throw new Problem("network", 0);
    });
    if (response.ok) return response.status === 204 ? null : response.json();
    const problem = await Problem.from(response);
    if (problem.status !== 503 || attempt > 20) throw problem;
    onWait?.(words[problem.code] ?? problem.message);
  }
}
