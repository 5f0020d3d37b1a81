import { mkdir, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { CLIENT_FILES, VERSION_HEADER } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { FailureRecord } from '../../../src/lib/errors.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { WARMSITE_VERSION } from '../../../src/lib/records.ts';
import { createIdentity, LeafKeeper, type SiteIdentity } from '../../../src/peer/index.ts';
import { lastFirst } from '../../support/last-first.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

export interface Answer {
  readonly status?: number;
  readonly version?: string;
  /** A text is sent as it is. */
  readonly body: unknown;
}

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly body: string;
}

/** An API that answers what a test wants, over TLS with the leaf of a site's authority, and its data directory. */
export interface FakeSite {
  readonly dataDirectory: string;
  readonly identity: SiteIdentity;
  readonly address: { readonly host: string; readonly port: number };
  /** What was asked so far, in its order. */
  readonly asked: readonly Asked[];
  close(): Promise<void>;
}

export const OPERATOR_TOKEN = 'the-token-of-the-operator';

/** `answer` gets what was asked, with a good token or not; a rejection ends the connection without an answer. */
export async function fakeSite(
  context: CleanUp,
  answer: (asked: Asked) => Answer | Promise<Answer>,
): Promise<FakeSite> {
  const t = lastFirst(context);
  const dataDirectory = await temporaryDirectory(t);
  const clock = systemClock;
  const random = systemRandom;
  const identity = await createIdentity({ name: 'fake', clock, random });
  const { key, cert } = new LeafKeeper({ identity, clock, random }).current();
  const asked: Asked[] = [];
  const server = createServer({ key, cert, minVersion: 'TLSv1.3' }, async (request, response) => {
    const one: Asked = {
      method: request.method ?? '',
      path: request.url ?? '',
      authorization: request.headers.authorization,
      body: await textOf(request),
    };
    asked.push(one);
    try {
      const { status = 200, version = WARMSITE_VERSION, body } = await answer(one);
      response.writeHead(status, { [VERSION_HEADER]: version });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    } catch {
      // The site ends in the middle of its work.
      response.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  t.after(close);
  const address = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  await writeClientFiles(dataDirectory, { address, authority: identity.caCertificate });
  return { dataDirectory, identity, address, asked, close };
}

/** The files that a site leaves for the clients of its host. */
export async function writeClientFiles(
  dataDirectory: string,
  o: { address?: object | string; authority: string; token?: string },
): Promise<void> {
  const write = async (name: string, text: string) => {
    const path = join(dataDirectory, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  };
  await write(CLIENT_FILES.authority, o.authority);
  await write(CLIENT_FILES.operatorToken, `${o.token ?? OPERATOR_TOKEN}\n`);
  if (o.address !== undefined) {
    await write(
      CLIENT_FILES.apiAddress,
      typeof o.address === 'string' ? o.address : JSON.stringify(o.address),
    );
  }
}

/** A failure as a site answers it. */
export function failed(status: number, error: Partial<FailureRecord>): Answer {
  const whole: FailureRecord = {
    code: 'SOME_CODE',
    kind: 'refused',
    retry: 'never',
    message: 'it cannot be done',
    hint: 'Do something else.',
    context: {},
    ...error,
  };
  return { status, body: { error: whole } };
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}
