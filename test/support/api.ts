import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { Value } from 'typebox/value';
import {
  API_PREFIX,
  CLIENT_FILES,
  ErrorAnswer,
  ROUTES,
  type RouteAnswer,
  type RouteBody,
  type RouteName,
  type RouteParams,
  type RouteQuery,
  VERSION_HEADER,
} from '../../src/api/index.ts';

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface RawRequest {
  readonly method: string;
  readonly path: string;
  readonly token?: string;
  readonly body?: string;
}

interface Call<N extends RouteName> {
  readonly params?: RouteParams<N>;
  readonly query?: RouteQuery<N>;
  readonly body?: RouteBody<N>;
}

/** The API of a site as a client on the same host sees it. Every answer is held against the schema of its route. */
export class TestApi {
  readonly #authority: Buffer;
  readonly #token: string;
  readonly #address: { readonly host: string; readonly port: number };

  private constructor(authority: Buffer, token: string, address: { host: string; port: number }) {
    this.#authority = authority;
    this.#token = token;
    this.#address = address;
  }

  static async of(dataDirectory: string): Promise<TestApi> {
    const read = (name: string) => readFile(join(dataDirectory, name));
    return new TestApi(
      await read(CLIENT_FILES.authority),
      (await read(CLIENT_FILES.operatorToken)).toString('utf8').trim(),
      JSON.parse((await read(CLIENT_FILES.apiAddress)).toString('utf8')),
    );
  }

  async call<N extends RouteName>(name: N, o: Call<N> = {}): Promise<RouteAnswer<N>> {
    const route = ROUTES[name];
    const params = (o.params ?? {}) as Readonly<Record<string, string>>;
    const path = route.path.replace(/:(\w+)/g, (_, key: string) => encodeURIComponent(params[key]!));
    const query = new URLSearchParams(o.query as Record<string, string> | undefined).toString();
    const answer = await this.raw({
      method: route.method,
      path: API_PREFIX + path + (query ? `?${query}` : ''),
      token: this.#token,
      ...(o.body === undefined ? {} : { body: JSON.stringify(o.body) }),
    });
    const value: unknown = JSON.parse(answer.text);
    if (answer.status !== 200) {
      assert.ok(Value.Check(ErrorAnswer, value), `${name} answered ${answer.status} ${answer.text}`);
      throw Object.assign(new Error(`${value.error.code}: ${value.error.message}`), value.error);
    }
    assert.equal(typeof answer.headers[VERSION_HEADER], 'string');
    const [wrong] = Value.Errors(route.answer, value);
    assert.equal(
      wrong,
      undefined,
      `${name} answered in another shape: ${JSON.stringify(wrong)} ${answer.text}`,
    );
    return value as RouteAnswer<N>;
  }

  raw(o: RawRequest): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          ...this.#address,
          method: o.method,
          path: o.path,
          ca: this.#authority,
          // Host names play no part: the site's own authority is the only one that is trusted.
          checkServerIdentity: () => undefined,
          agent: false,
          headers: {
            ...(o.token === undefined ? {} : { authorization: `Bearer ${o.token}` }),
            // The length too: Node announces no body of a DELETE by itself.
            ...(o.body === undefined
              ? {}
              : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(o.body) }),
          },
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
          incoming.on('error', reject);
          incoming.on('end', () => {
            const { statusCode: status = 0, headers } = incoming;
            resolve({ status, headers, text: Buffer.concat(chunks).toString('utf8') });
          });
        },
      );
      outgoing.on('error', reject);
      outgoing.end(o.body);
    });
  }

  get token(): string {
    return this.#token;
  }
}
