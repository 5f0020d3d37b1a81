import { X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { Value } from 'typebox/value';
import {
  API_PREFIX,
  ErrorAnswer,
  ROUTES,
  type RouteAnswer,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  VERSION_HEADER,
} from '../api/index.ts';
import { type Clock, cancelled, withTimeout } from '../lib/clock.ts';
import { Failure, messageOf, systemCodeOf } from '../lib/errors.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import { cliFailure } from './errors.ts';
import { type ApiAccess, siteStopped } from './site-files.ts';

/** An answer that is larger is not one of a site. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

/** Acts may commit whole disks before they answer; what only looks must answer sooner. */
const LOOK_LIMIT_MS = 60_000;
const ACT_LIMIT_MS = 30 * 60_000;

type Part<K extends string, T> =
  Record<never, never> extends T ? { readonly [P in K]?: T } : { readonly [P in K]: T };

export type ApiRequest<N extends RouteName> = Part<'params', RouteParams<N>> &
  Part<'query', RouteQuery<N>> &
  Part<'body', RouteBody<N>> & {
    /** Longest time for the answer to be complete. */
    readonly limitMs?: number;
    readonly signal?: AbortSignal;
  };

interface PlainRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: object;
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * A client of a site's API. The site proves itself by a certificate of the authority that lies in its data directory;
 * there is no other trust and no way around it. Answers are checked against the contract before they are believed.
 *
 * Throws what the site reports, as the same failure, and CLI_SITE_STOPPED, CLI_API_UNTRUSTED, CLI_ANSWER_INVALID,
 * CLI_ANSWER_LATE, CANCELLED.
 */
export class ApiClient {
  readonly #access: ApiAccess;
  readonly #authority: X509Certificate;
  readonly #clock: Clock;
  readonly #agent = new Agent({ keepAlive: true, maxCachedSessions: 0 });

  constructor(o: { access: ApiAccess; clock: Clock }) {
    this.#access = o.access;
    this.#authority = authorityOf(o.access.authority);
    this.#clock = o.clock;
  }

  async call<N extends RouteName>(name: N, request: ApiRequest<N>): Promise<RouteAnswer<N>> {
    // The parameters of every route are texts; the compiler does not see that for all of them at once.
    const plain = request as PlainRequest;
    const { method, answer } = ROUTES[name];
    const limitMs = plain.limitMs ?? (method === 'GET' ? LOOK_LIMIT_MS : ACT_LIMIT_MS);
    const { status, version, text } = await withTimeout(
      this.#clock,
      limitMs,
      (signal) => this.#exchange(method, pathOf(ROUTES[name].path, plain), plain.body, signal),
      () => cliFailure('CLI_ANSWER_LATE', `the site did not answer in ${limitMs / 1000} s`),
      plain.signal,
    );
    const value = parse(text, status);
    if (status === 200 && Value.Check(answer, value)) return value as RouteAnswer<N>;
    if (status !== 200 && Value.Check(ErrorAnswer, value)) {
      const { code, message, kind, retry, hint, context } = value.error;
      throw new Failure(code, { kind, retry, remedy: hint }, message, { context });
    }
    const other =
      version === WARMSITE_VERSION ? '' : ` (it is Warmsite ${version}, this is ${WARMSITE_VERSION})`;
    throw cliFailure('CLI_ANSWER_INVALID', `the site answered ${name} with something unknown${other}`, {
      context: { status, version },
    });
  }

  close(): void {
    this.#agent.destroy();
  }

  async #exchange(
    method: string,
    path: string,
    body: object | undefined,
    signal: AbortSignal,
  ): Promise<{ status: number; version: string; text: string }> {
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const request = httpsRequest(this.#options(method, path, bytes, signal), resolve);
        request.once('error', reject);
        request.end(bytes);
      });
      const version = String(response.headers[VERSION_HEADER] ?? 'unknown');
      return { status: response.statusCode ?? 0, version, text: await readAll(response) };
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      throw this.#failureOf(error);
    }
  }

  #options(method: string, path: string, body: Buffer | undefined, signal: AbortSignal): RequestOptions {
    const { host, port, authority, token } = this.#access;
    return {
      agent: this.#agent,
      host,
      port,
      method,
      path: API_PREFIX + path,
      signal,
      headers: {
        authorization: `Bearer ${token}`,
        [VERSION_HEADER]: WARMSITE_VERSION,
        ...(body ? { 'content-type': 'application/json', 'content-length': body.length } : {}),
      },
      minVersion: 'TLSv1.3',
      rejectUnauthorized: true,
      ca: authority,
      checkServerIdentity: (_host, shown) => this.#faultOf(new X509Certificate(shown.raw)),
    };
  }

  /** Node has checked the chain up to the authority; the name in the certificate is left, and that is no host name. */
  #faultOf(leaf: X509Certificate): Error | undefined {
    const siteId = /^CN=Warmsite authority ([0-9a-z]{26})$/m.exec(this.#authority.subject)?.[1];
    const names = leaf.subjectAltName?.split(', ') ?? [];
    if (siteId !== undefined && names.includes(`URI:warmsite:site:${siteId}`)) return undefined;
    return this.#untrusted('its certificate is not one of this site');
  }

  #untrusted(why: string): Failure {
    const { host, port } = this.#access;
    return cliFailure(
      'CLI_API_UNTRUSTED',
      `${host} port ${port} is not the site of this data directory: ${why}`,
      {
        context: { host, port },
      },
    );
  }

  #failureOf(error: unknown): Error {
    if (error instanceof Failure) return error;
    const code = systemCodeOf(error) ?? '';
    const { host, port } = this.#access;
    if (/^(ECONNREFUSED|ECONNRESET|EPIPE|EHOSTUNREACH|ETIMEDOUT|ENETUNREACH|ENOTFOUND)$/.test(code)) {
      return siteStopped(`${host} port ${port}`);
    }
    // What Node adds after the semicolon would have people trust the authorities of their system instead.
    return this.#untrusted(messageOf(error).replace(/;.*$/s, ''));
  }
}

function authorityOf(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw cliFailure('CLI_ANSWER_INVALID', 'the certificate in the data directory cannot be read', {
      cause: error,
    });
  }
}

/** The path of a route with its parameters filled in, each one path segment, and its query. */
function pathOf(pattern: string, request: PlainRequest): string {
  const path = pattern.replace(/:([a-z]+)/g, (_, name: string) =>
    encodeURIComponent(request.params?.[name] ?? ''),
  );
  const pairs = Object.entries(request.query ?? {}).filter(
    (pair): pair is [string, string] => pair[1] !== undefined,
  );
  return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs)}`;
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += (chunk as Buffer).length;
    if (size > ANSWER_BYTES_MAX) throw cliFailure('CLI_ANSWER_INVALID', 'the answer is too long to be one');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(text: string, status: number): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw cliFailure('CLI_ANSWER_INVALID', 'the answer of the site is not JSON', {
      context: { status },
      cause: error,
    });
  }
}
