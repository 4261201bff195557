// The identity provider of the end-to-end tests: oidc-provider, an OpenID-certified server that nobody here wrote,
// with short lifetimes, rotating refresh tokens, and paths of our own under `/_` and `/api` to seed, count, break and use.
//
// Environment: HOST (127.0.0.1), PORT (0: a free one), ISSUER (http://HOST:PORT), SHORT_TTL and LONG_TTL (seconds, of
// the access tokens of client `short` and of all others), EXIT_WITH_STDIN=1 (end when standard input does).
// It prints `READY <issuer>` once it listens.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider, { errors } from 'oidc-provider';

const { HOST = '127.0.0.1', PORT = '0', SHORT_TTL = '5', LONG_TTL = '600', EXIT_WITH_STDIN } = process.env;
const SCOPES = ['api:read', 'api:write'];
const RESOURCES = ['https://api.example/opaque', 'https://api.example/jwt'];

const machine = {
  response_types: [], redirect_uris: [], grant_types: ['client_credentials'], scope: SCOPES.join(' '),
  token_endpoint_auth_method: 'client_secret_basic',
};
const web = {
  response_types: ['code'], redirect_uris: ['http://127.0.0.1:9/callback'], scope: ['openid', 'offline_access', ...SCOPES].join(' '),
  grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'client_secret_basic',
};
const clients = [
  // Characters that RFC 6749 section 2.3.1 wants form-encoded before they go into the header.
  { ...machine, client_id: 'ci', client_secret: 's3cr:et/ %+x' },
  { ...machine, client_id: 'ci-post', client_secret: 'post-secret', token_endpoint_auth_method: 'client_secret_post' },
  { ...machine, client_id: 'short', client_secret: 'short-secret' },
  { ...web, client_id: 'crm', client_secret: 'crm-secret' },
  // Stands for the protected API: it may only introspect.
  { ...machine, client_id: 'api', client_secret: 'api-secret', grant_types: [] },
];

const accessTokenTtl = (client) => Number(client.clientId === 'short' ? SHORT_TTL : LONG_TTL);

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const configuration = {
  clients,
  jwks: { keys: [{ ...signingKey, kid: 'signing', alg: 'RS256', use: 'sig' }] },
  cookies: { keys: [randomUUID()] },
  scopes: ['openid', 'offline_access', ...SCOPES],
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // Every use of a refresh token replaces it, and a second use of the old one ends the whole family (RFC 9700 4.14.2).
  rotateRefreshToken: true,
  ttl: {
    AccessToken: (ctx, token, client) => accessTokenTtl(client),
    ClientCredentials: (ctx, token, client) => accessTokenTtl(client),
    RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, IdToken: 600,
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo(ctx, resource, client) {
        if (!RESOURCES.includes(resource)) throw new errors.InvalidTarget();
        const accessTokenFormat = resource.endsWith('/jwt') ? 'jwt' : 'opaque';
        return { scope: SCOPES.join(' '), audience: resource, accessTokenTTL: accessTokenTtl(client), accessTokenFormat };
      },
    },
  },
};

const stats = { token_requests: 0, success: {}, error: {}, reuse_detected: 0 };
const count = (table, key) => { table[key] = (table[key] ?? 0) + 1; };
let fault = { times: 0 };

async function json(ctx) {
  let text = '';
  for await (const chunk of ctx.req) text += chunk;
  return text ? JSON.parse(text) : {};
}

/** A refresh token as a log-in in the browser would have given it, bound to a grant that is just as real. */
async function seed(provider, { client_id = 'crm', sub = 'alice', scope = 'openid offline_access api:read' }) {
  const client = await provider.Client.find(client_id);
  const grant = new provider.Grant({ clientId: client_id, accountId: sub });
  grant.addOIDCScope(scope);
  for (const resource of RESOURCES) grant.addResourceScope(resource, SCOPES.join(' '));
  const now = Math.floor(Date.now() / 1000);
  const token = new provider.RefreshToken({
    client, accountId: sub, grantId: await grant.save(), scope, gty: 'authorization_code', rotations: 0, iiat: now, authTime: now,
  });
  return { refresh_token: await token.save() };
}

/** The protected API: 200 to a live opaque token of this provider, else 401 (RFC 6750 section 3). */
async function api(provider, ctx) {
  const value = /^Bearer (.+)$/.exec(ctx.get('authorization'))?.[1];
  const token = value && (await provider.ClientCredentials.find(value) ?? await provider.AccessToken.find(value));
  if (token?.isValid) {
    ctx.body = { client_id: token.clientId };
  } else {
    ctx.status = 401;
    ctx.set('www-authenticate', 'Bearer error="invalid_token"');
  }
}

const basicClientId = (ctx) => Buffer.from(ctx.get('authorization').slice('Basic '.length), 'base64').toString().split(':')[0];

/**
 * Breaks the next token requests as told by `{"times": 3, "status": 503, "retry_after": 2, "delay_ms": 0}`, and with
 * `"client_id"` those of one client alone (one that authenticates by client_secret_basic).
 */
async function breakOrPass(ctx, next) {
  stats.token_requests += 1;
  if (fault.times <= 0 || (fault.client_id && fault.client_id !== basicClientId(ctx))) return next();
  fault.times -= 1;
  if (fault.delay_ms) await new Promise((resolve) => { setTimeout(resolve, fault.delay_ms); });
  if (!fault.status) return next();
  ctx.status = fault.status;
  if (fault.retry_after !== undefined) ctx.set('retry-after', String(fault.retry_after));
  ctx.body = 'injected fault';
}

async function route(provider, ctx, next) {
  switch (ctx.path) {
    case '/_stats': ctx.body = stats; return;
    case '/_fault': fault = { times: 1, ...(await json(ctx)) }; ctx.body = fault; return;
    case '/_seed': ctx.body = await seed(provider, await json(ctx)); return;
    case '/api': await api(provider, ctx); return;
    case '/token': await breakOrPass(ctx, next); return;
    default: await next();
  }
}

// The issuer holds the port, so the socket comes first.
const server = createServer();
await new Promise((resolve) => { server.listen(Number(PORT), HOST, resolve); });
const issuer = process.env.ISSUER ?? `http://${HOST}:${server.address().port}`;
const provider = new Provider(issuer, configuration);
provider.on('grant.success', (ctx) => count(stats.success, `${ctx.oidc.client.clientId}:${ctx.oidc.params.grant_type}`));
provider.on('grant.error', (ctx, error) => {
  count(stats.error, `${ctx.oidc.client?.clientId ?? '?'}:${error.error}`);
  if (error.error_detail === 'refresh token already used') stats.reuse_detected += 1;
});
provider.on('server_error', (ctx, error) => console.error(error));
provider.use((ctx, next) => route(provider, ctx, next));
server.on('request', provider.callback());
if (EXIT_WITH_STDIN === '1') process.stdin.on('end', () => process.exit(0)).resume();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
console.log(`READY ${issuer}`);
