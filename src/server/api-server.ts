import { constants } from 'node:crypto';
import type { Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import rateLimit from '@fastify/rate-limit';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import {
  API_PREFIX,
  EVENTS_PATH,
  REQUEST_BYTES_MAX,
  ROUTES,
  type RouteName,
  TRIGGER_PATH,
  VERSION_HEADER,
} from '../api/index.ts';
import { controlFailure, type Site } from '../control/index.ts';
import type { Clock } from '../lib/clock.ts';
import { Failure, KIND_TABLE, messageOf, systemCodeOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { newId, type Random } from '../lib/random.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import { type Leaf, LeafKeeper } from '../peer/index.ts';
import { type OperatorTokens, tokenIn } from './authentication.ts';
import { serverFailure } from './errors.ts';
import { streamEvents } from './event-stream.ts';
import { type Asked, HANDLERS } from './handlers.ts';
import { checked } from './validation.ts';

export interface ApiServerOptions {
  readonly site: Site;
  readonly tokens: OperatorTokens;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Wrong tokens from one address before they are no longer looked at for a while; the right one always passes. */
const WRONG_TOKENS_MAX = 20;
const WRONG_TOKENS_WINDOW_MS = 60_000;

/**
 * The control plane over HTTPS: every route of `api`, and the event stream. Each request is authenticated first, checked
 * against its schema next, and only then done; what fails is answered as a failure with its code, and an error without
 * a code as INTERNAL, whose details stand in the log alone.
 */
export class ApiServer {
  readonly #o: ApiServerOptions;
  readonly #leaves: LeafKeeper;
  readonly #app: FastifyInstance<Server>;
  readonly #streams = new Set<() => void>();
  /** Who sent a request, as it was when it came. */
  readonly #actors = new WeakMap<FastifyRequest, string>();
  #leaf: Leaf;

  private constructor(o: ApiServerOptions) {
    const { site, clock, random } = o;
    this.#o = o;
    this.#leaves = new LeafKeeper({ identity: site.identity, clock, random, hosts: hostsOf(site.settings) });
    this.#leaf = this.#leaves.current();
    this.#app = fastify({
      https: tlsOptions(this.#leaf),
      bodyLimit: REQUEST_BYTES_MAX,
      // A long poll or an idle connection would hold up the end.
      forceCloseConnections: true,
      genReqId: () => newId(clock, random),
      routerOptions: { maxParamLength: 256 },
    });
  }

  /** Resolves when the port is open; API_LISTEN_FAILED if it cannot be opened. */
  static async listen(o: ApiServerOptions): Promise<ApiServer> {
    const server = new ApiServer(o);
    await server.#prepare();
    await server.#open();
    return server;
  }

  get address(): { readonly host: string; readonly port: number } {
    const { address, port } = this.#app.server.address() as AddressInfo;
    return { host: address, port };
  }

  /** Ends event streams and connections, also those whose request is under way: what it asked for goes on. */
  async close(): Promise<void> {
    for (const end of this.#streams) end();
    await this.#app.close();
  }

  async #prepare(): Promise<void> {
    const app = this.#app;
    await app.register(rateLimit, { global: false });
    const countWrongToken = app.createRateLimit({
      max: WRONG_TOKENS_MAX,
      timeWindow: WRONG_TOKENS_WINDOW_MS,
    });
    app.addHook('onRequest', async (request, reply) => {
      reply.header(VERSION_HEADER, WARMSITE_VERSION);
      reply.header('cache-control', 'no-store');
      reply.header('request-id', request.id);
      const actor = this.#actorOf(request);
      if (actor !== undefined) {
        this.#actors.set(request, actor);
        return;
      }
      const limit = await countWrongToken(request);
      const isTooMany = !limit.isAllowed && limit.isExceeded;
      throw isTooMany
        ? serverFailure('API_TOO_MANY_ATTEMPTS', 'too many wrong tokens came from this address')
        : serverFailure('API_UNAUTHORIZED', 'the request carries no token that is good for it');
    });
    app.setErrorHandler((error, request, reply) => this.#answerError(error, request, reply));
    app.setNotFoundHandler((request, reply) => {
      const said = `there is no ${request.method} ${request.url.split('?')[0]?.slice(0, 200)}`;
      return this.#answerError(serverFailure('API_ROUTE_UNKNOWN', said), request, reply);
    });
    for (const name of Object.keys(ROUTES) as RouteName[]) this.#route(name);
    app.get(API_PREFIX + EVENTS_PATH, (_request, reply) => {
      reply.hijack();
      const end = streamEvents(this.#o.site, reply.raw, this.#o.clock);
      this.#streams.add(end);
      reply.raw.once('close', () => this.#streams.delete(end));
    });
  }

  #route<N extends RouteName>(name: N): void {
    const { method, path, params, query, body } = ROUTES[name];
    const handler = HANDLERS[name] as (asked: Asked<N>) => unknown;
    this.#app.route({
      method,
      url: API_PREFIX + path,
      handler: async (request, reply) => {
        const gone = new AbortController();
        reply.raw.once('close', () => gone.abort());
        const answer = await handler({
          site: this.#o.site,
          actor: this.#actors.get(request)!,
          params: checked(params, request.params, 'path') as Asked<N>['params'],
          query: checked(query, request.query, 'query') as Asked<N>['query'],
          body: checked(body, request.body ?? {}, 'body') as Asked<N>['body'],
          apiAddress: this.address,
          signal: gone.signal,
        });
        return reply.send(answer);
      },
    });
  }

  /** The operator, or whoever shows the token of the very trigger that is asked for. */
  #actorOf({ headers, method, routeOptions, params }: FastifyRequest): string | undefined {
    const token = tokenIn(headers.authorization);
    const isTrigger = method === 'POST' && routeOptions.url === API_PREFIX + TRIGGER_PATH;
    const operator = this.#o.tokens.actorOf(token);
    if (operator !== undefined || !isTrigger) return operator;
    return this.#o.site.triggers.actorOf(String((params as { trigger: unknown }).trigger), token);
  }

  #answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const failure = this.#failureOf(error);
    const about = { requestId: request.id, method: request.method, path: request.url.split('?')[0] };
    if (failure.code === 'INTERNAL') this.#o.log.error('api.handler-broke', { ...about, error });
    else this.#o.log.info('api.request-refused', { ...about, code: failure.code });
    if (failure.kind === 'unauthorized') reply.header('www-authenticate', 'Bearer');
    const { againInMs } = failure.context;
    if (typeof againInMs === 'number') reply.header('retry-after', String(Math.ceil(againInMs / 1000)));
    return reply.status(KIND_TABLE[failure.kind].httpStatus).send({ error: failure.toJSON() });
  }

  /** Fastify's own refusals (a body that is too long or no JSON) are the client's mistake. */
  #failureOf(error: unknown): Failure {
    if (error instanceof Failure) return error;
    const status = (error as { statusCode?: unknown } | null)?.statusCode;
    if (typeof status === 'number' && status >= 400 && status < 500) {
      return serverFailure('API_REQUEST_INVALID', messageOf(error), { cause: error });
    }
    return controlFailure('INTERNAL', 'an unexpected error happened in the site process', { cause: error });
  }

  async #open(): Promise<void> {
    const { host, port } = this.#o.site.settings.api;
    // Before TLS sees the connection, so that it is served with a leaf that is valid now.
    this.#app.server.prependListener('connection', (_socket: Socket) => this.#renewLeaf());
    try {
      await this.#app.listen({ host, port });
    } catch (error) {
      throw serverFailure('API_LISTEN_FAILED', `cannot listen at ${host}:${port}: ${messageOf(error)}`, {
        context: { host, port, system: systemCodeOf(error) ?? null },
        cause: error,
      });
    }
  }

  #renewLeaf(): void {
    const leaf = this.#leaves.current();
    if (leaf === this.#leaf) return;
    this.#leaf = leaf;
    this.#app.server.setSecureContext(tlsOptions(leaf));
  }
}

/** By what programs that are not ours may know the site: where the API listens, and what other sites reach it by. */
function hostsOf({ api, advertisedHost }: Site['settings']): string[] {
  const listening = api.host === '0.0.0.0' || api.host === '::' ? [] : [api.host];
  return [...new Set([...listening, ...(advertisedHost === undefined ? [] : [advertisedHost])])];
}

function tlsOptions(leaf: Leaf) {
  return {
    key: leaf.key,
    cert: leaf.cert,
    minVersion: 'TLSv1.3' as const,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}
