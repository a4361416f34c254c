// A certified OpenID provider (oidc-provider) as a gateway meets it in production: a login form to fill in, short access
// tokens, refresh tokens that rotate at every use, reuse that revokes the whole grant. Every secret it mints is kept, so
// that tests can look for it where it must not be.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { Provider } from 'oidc-provider';
import { close, sleep } from './wait.js';

// users have claims that are easy to find should they leak.
export const users = {
  ada: { password: 'engine', name: 'Ada Canary-Lovelace', email: 'ada.canary@example.test' },
  grace: { password: 'compiler', name: 'Grace Canary-Hopper', email: 'grace.canary@example.test' },
};

const subject = (username) => `subject-of-${username}`;

// startProvider starts the provider with one confidential client for the app at origin. Options: accessTTL in seconds;
// bySubject: its logout tokens name the user and not the session.
export async function startProvider(origin, { accessTTL = 4, bySubject = false } = {}) {
  // What tests may change on the way: the life of access tokens in seconds, and how many milliseconds longer the token
  // endpoint takes.
  const pace = { accessTTL, tokenDelay: 0 };
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // 127.0.0.1 is another site than the app's localhost, so that SameSite faults show.
  const issuer = `http://127.0.0.1:${server.address().port}`;

  const provider = new Provider(issuer, configuration(origin, pace, bySubject));
  const records = watch(provider);
  provider.use(async (ctx, next) => {
    if (ctx.path === '/token') await sleep(pace.tokenDelay);
    await next();
  });
  const handle = provider.callback();
  server.on('request', (req, res) => {
    if (req.url.startsWith('/interaction/')) {
      interaction(provider, req, res).catch((err) => {
        res.writeHead(err.statusCode ?? 500, { 'content-type': 'text/plain' }).end(err.message);
      });
      return;
    }
    handle(req, res);
  });

  return {
    issuer,
    client: { id: 'spa', secret: 'a-client-secret-of-some-length-for-tests' },
    pace,
    ...records,
    // judge says what a resource server would of an access token: "valid" or "invalid".
    judge: async (token) => (token && await provider.AccessToken.find(token) ? 'valid' : 'invalid'),
    stop: () => close(server),
  };
}

function configuration(origin, pace, bySubject) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return {
    clients: [{
      client_id: 'spa',
      client_secret: 'a-client-secret-of-some-length-for-tests',
      redirect_uris: [`${origin}/bff/callback`],
      post_logout_redirect_uris: [`${origin}/bff/logout/callback`],
      backchannel_logout_uri: `${origin}/bff/backchannel`,
      backchannel_logout_session_required: !bySubject,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
    }],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'test' }] },
    cookies: { keys: ['only for tests'] },
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email'] },
    // Claims in the ID token, as most providers have it.
    conformIdTokenClaims: false,
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true, logoutSource },
    },
    // Its own dispatcher talks to public addresses only, and the gateway is on loopback.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    interactions: { url: (ctx, { uid }) => `/interaction/${uid}` },
    findAccount: (ctx, id) => {
      const [username, user] = Object.entries(users).find(([name]) => subject(name) === id) ?? [];
      if (!user) return undefined;
      const claims = { sub: id, name: user.name, email: user.email, preferred_username: username };
      return { accountId: id, claims: async () => claims };
    },
    // First party: who logs in has agreed.
    loadExistingGrant: async (ctx) => {
      const { client, session, provider, params } = ctx.oidc;
      const former = session.grantIdFor(client.clientId);
      const grant = (former && await provider.Grant.find(former))
        || new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope(params.scope);
      await grant.save();
      return grant;
    },
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    // Tokens outlive the login at the provider: only a revocation by the gateway ends them.
    expiresWithSession: async () => false,
    rotateRefreshToken: true,
    pkce: { required: () => true },
    ttl: {
      AccessToken: () => pace.accessTTL, AuthorizationCode: 60, IdToken: 3600, RefreshToken: 3600, Grant: 7200, Session: 7200, Interaction: 600,
    },
    renderError: (ctx, out) => {
      ctx.type = 'text/plain';
      ctx.body = `provider error: ${out.error} ${out.error_description ?? ''}`;
    },
  };
}

// watch records what the provider minted and was asked for.
function watch(provider) {
  const minted = { access: new Set(), refresh: new Set(), id: new Set(), code: new Set() };
  const calls = []; // of the token endpoint: {grant, error, detail}
  const revoked = []; // refresh tokens that the gateway had revoked

  provider.on('authorization_code.saved', (code) => minted.code.add(code.jti));
  provider.on('access_token.issued', (token) => minted.access.add(token.jti));
  provider.on('access_token.saved', (token) => minted.access.add(token.jti));
  provider.on('refresh_token.saved', (token) => minted.refresh.add(token.jti));
  provider.on('grant.success', (ctx) => {
    const { access_token: access, refresh_token: refresh, id_token: id } = ctx.body;
    for (const [kind, token] of Object.entries({ access, refresh, id })) if (token) minted[kind].add(token);
    calls.push({ grant: ctx.oidc.params.grant_type });
  });
  provider.on('grant.error', (ctx, err) => {
    calls.push({ grant: ctx.oidc.params?.grant_type, error: err.error, detail: err.error_detail });
  });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'revocation' && ctx.status === 200) revoked.push(ctx.oidc.params.token);
  });
  const told = []; // clients that took a logout token
  provider.on('backchannel.success', (ctx, client, accountId, sid) => told.push({ client: client.clientId, accountId, sid }));
  const untold = []; // and those that did not
  provider.on('backchannel.error', (ctx, err, client) => untold.push({ client: client.clientId, err }));
  const faults = [];
  provider.on('server_error', (ctx, err) => faults.push(err));

  return {
    minted,
    calls,
    revoked,
    told,
    untold,
    faults,
    tokenCalls: (grant) => calls.filter((call) => call.grant === grant),
    reuses: () => calls.filter((call) => call.detail?.includes('already used')),
  };
}

// interaction is the login form, and what happens when it is sent.
async function interaction(provider, req, res) {
  const { uid, prompt } = await provider.interactionDetails(req, res);
  if (req.method !== 'POST') {
    return form(res, 200, uid, prompt.name);
  }
  const body = new URLSearchParams(await text(req));
  if (body.has('cancel')) {
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'cancelled' });
  }
  const user = users[body.get('username')];
  if (!user || user.password !== body.get('password')) {
    return form(res, 401, uid, prompt.name, 'Wrong name or password.');
  }
  return provider.interactionFinished(req, res, { login: { accountId: subject(body.get('username')) } });
}

async function text(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function form(res, status, uid, prompt, problem = '') {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
  res.end(`<!doctype html><title>Log in at the provider</title><h1>Log in (${prompt})</h1><p>${problem}</p>
<form method="post" action="/interaction/${uid}">
<label>Name <input name="username" autocomplete="off"></label>
<label>Password <input name="password" type="password"></label>
<button id="login">Log in</button> <button name="cancel" value="1" id="cancel">Cancel</button></form>`);
}

// logoutSource asks before it logs out, as the default page does, but without fonts from the internet.
function logoutSource(ctx, html) {
  ctx.body = `<!doctype html><title>Log out at the provider</title><h1>Log out?</h1>${html}
<button type="submit" form="op.logoutForm" value="yes" name="logout" id="confirm">Yes</button>`;
}
