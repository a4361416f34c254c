// Types of sessiongate's browser helper.

/** Why there is no session. */
export type Reason =
  /** There was none, or it is long over. */
  | "none"
  /** It was not used for `session.idle_timeout`. */
  | "idle_timeout"
  /** It reached `session.lifetime`. */
  | "lifetime"
  /** It was logged out, in this tab or in another. */
  | "logout"
  /** The provider ended it (OpenID Connect back-channel logout). */
  | "backchannel"
  /** The provider ended it (OpenID Connect front-channel logout). */
  | "frontchannel"
  /** The user, on another device, or the operator ended it. */
  | "revoked"
  /** The provider refused to go on with it. */
  | "refresh_rejected"
  /** Its access token ran out, and the provider gave no refresh token. */
  | "token_expired"
  /** It was ended by a newer login. */
  | "replaced";

/** The user's claims, those that `oidc.user_claims` lists. */
export interface User {
  readonly sub?: string;
  readonly name?: string;
  readonly email?: string;
  readonly preferred_username?: string;
  readonly picture?: string;
  readonly roles?: unknown;
  readonly groups?: unknown;
  readonly [claim: string]: unknown;
}

/** Somebody is logged in. */
export interface Authenticated {
  readonly authenticated: true;
  readonly user: User;
  readonly session: {
    /** When the login was, as in "2026-11-22T13:00:00Z". */
    readonly created_at: string;
    /** Seconds until the session ends for good. */
    readonly expires_in: number;
    /** Seconds until it ends unless it is used. */
    readonly idle_expires_in: number;
  };
  readonly access_token: {
    /** Seconds until the gateway needs a new one. Nothing that an app has to care about. */
    readonly expires_in: number;
  };
  readonly login_url: string;
  /** A link that logs out. It is of this session and no other. */
  readonly logout_url: string;
}

/** Nobody is logged in. */
export interface Anonymous {
  readonly authenticated: false;
  readonly reason: Reason;
  readonly login_url: string;
}

/** The answer of `GET /bff/session`. `authenticated` tells the two apart. */
export type Session = Authenticated | Anonymous;

/** How a call logs in when the gateway answers 401. */
export type LoginMode =
  /** The page goes to the login and comes back, with path, query and fragment. */
  | "navigate"
  /** A popup logs in, then the call is sent again. Where popups are blocked: as "navigate". */
  | "popup"
  /** It doesn't: the 401 is the answer. */
  | "none";

export interface FetchInit extends RequestInit {
  /** Default: "navigate". */
  login?: LoginMode;
}

export interface LoginOptions {
  /**
   * Where to go after the login: a path of this origin, with query and fragment. Default: where this page is. With `popup`:
   * the page that the popup comes back to, without fragment, and closes on.
   */
  returnUrl?: string;
  /** Log in in a popup, and stay on this page. Call it in a click handler, or browsers block the popup. */
  popup?: boolean;
  /** Further parameters for the provider, of those that `oidc.login_params` lists: `{ prompt: "select_account" }`. */
  params?: Record<string, string>;
}

export interface LogoutOptions {
  /** Where to go after the logout: a path of this origin. Default: `oidc.logout.after`. */
  returnUrl?: string;
}

/**
 * What promises are rejected with, but those of `fetch` by the network, which are the browser's own. It is an `Error` whose
 * `name` is "BffError".
 */
export interface BffError extends Error {
  name: "BffError";
  /**
   * "network": the gateway can't be reached. "unexpected_answer": something answered that is not the gateway. "not_replayable":
   * a popup logged in, but the call's body was a stream, which can't be sent again: make the call anew. Or one of the gateway's
   * codes, such as "store_unavailable".
   */
  code: string;
  /** The HTTP status, 0 if there was no answer. */
  status: number;
}

export interface Bff {
  /**
   * Tells who is logged in. It doesn't count as use of the session, and anonymous users are no error. While the gateway can't
   * say (its store or the network is down) it waits and asks again, three times; then it rejects with a {@link BffError}.
   */
  session(): Promise<Session>;

  /**
   * Is `fetch` with what the gateway asks for: the header X-CSRF on calls to this origin. Only to answers of the gateway itself
   * it reacts: 401 by a login, one for all calls that wait for it; 503 by waiting Retry-After, three times at most. In both
   * cases your API never saw the call, so any method is safe to repeat.
   *
   * With `login: "navigate"` the promise stays open while the page goes away. It is answered by the 401 if it must not go: it
   * has just come back from a login.
   */
  fetch(input: RequestInfo | URL, init?: FetchInit): Promise<Response>;

  /**
   * Logs in. Without `popup` the page goes away. With it, true: somebody is logged in; false: the popup was closed.
   */
  login(options?: LoginOptions): Promise<boolean>;

  /**
   * Logs out here and at the provider, tells the other tabs, and goes where the provider sends the browser. Clear what your app
   * stored first. Rejects with a {@link BffError} if the gateway can't be reached; then nobody was logged out.
   */
  logout(options?: LogoutOptions): Promise<void>;

  /**
   * Calls fn with who is logged in: at once, and at every change in whatever tab or at the server: login, logout, another user,
   * the end and its reason, 60 seconds before the end, and when that moved. Don't change the object: others get it, too.
   *
   * @returns a function that stops it.
   */
  onSession(fn: (session: Session) => void): () => void;

  /** Uses the session, so that its idle time begins anew: "stay logged in". */
  stay(): Promise<Session>;
}

/** The helper for the gateway that served this module; in a bundle, for the gateway at "/bff" of this page's origin. */
export const bff: Bff;

/** The helper for another base path: `createBff({ base: "/auth" })`. */
export function createBff(options?: { base?: string }): Bff;
