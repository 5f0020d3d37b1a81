import { request as requestPlain } from 'node:http';
import { request as requestSecured } from 'node:https';
import { fileURLToPath } from 'node:url';
import { sleep, systemClock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { patternOf } from '../probe/index.ts';

/**
 * A process that asks a web server until it answers as wished: `http-ask-main.ts QUESTION`, which is JSON. It is run inside the network namespace
 * of a branch, which the site's own process never enters. Exit code 0: the answer was right; 1: the limit has passed, the last reason is on standard error.
 */
export const HTTP_PROGRAM = fileURLToPath(import.meta.url);

export interface HttpQuestion {
  readonly url: string;
  /** Any from 200 to 399 if absent. */
  readonly status?: number;
  /** Of the beginning of the body. */
  readonly pattern?: string;
  /** The name that the server is asked for. */
  readonly name?: string;
  readonly limitMs: number;
}

const TRY_MS_MAX = 10_000;
const PAUSE_MS = 200;
const BODY_BYTES_MAX = 64 * 1024;

async function main(question: HttpQuestion): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + question.limitMs;
  for (;;) {
    const leftMs = deadlineMs - systemClock.monotonicMs();
    const failed = await objectionTo(question, Math.max(1, Math.min(TRY_MS_MAX, leftMs)));
    if (failed === undefined) return 0;
    if (systemClock.monotonicMs() + PAUSE_MS > deadlineMs) {
      process.stderr.write(failed);
      return 1;
    }
    await sleep(systemClock, PAUSE_MS);
  }
}

/** Why one answer is not the right one; undefined if it is. */
async function objectionTo(
  { url, status, pattern, name }: HttpQuestion,
  limitMs: number,
): Promise<string | undefined> {
  try {
    const answer = await ask(url, name, limitMs);
    const isFine =
      status === undefined ? answer.status >= 200 && answer.status < 400 : answer.status === status;
    if (!isFine) return `it answers with status ${answer.status}`;
    if (pattern === undefined || patternOf(pattern).test(answer.body)) return undefined;
    return `its answer does not match: ${answer.body.slice(0, 200).trim()}`;
  } catch (error) {
    return messageOf(error);
  }
}

function ask(
  url: string,
  name: string | undefined,
  limitMs: number,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const isSecured = url.startsWith('https:');
    const headers = { 'user-agent': 'warmsite', connection: 'close', ...(name ? { host: name } : {}) };
    // It is asked whether it answers, and by its address: who it is, no certificate tells in a rehearsal.
    const secured = { rejectUnauthorized: false, ...(name ? { servername: name } : {}) };
    const asked = isSecured
      ? requestSecured(url, { agent: false, headers, ...secured })
      : requestPlain(url, { agent: false, headers });
    const cancel = systemClock.after(limitMs, () => asked.destroy(new Error('no answer in time')));
    asked.once('error', (error) => {
      cancel();
      reject(error);
    });
    asked.once('response', (answer) => {
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      const done = () => {
        cancel();
        const body = Buffer.concat(chunks).subarray(0, BODY_BYTES_MAX).toString('utf8');
        resolve({ status: answer.statusCode ?? 0, body });
        asked.destroy();
      };
      answer.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        sizeBytes += chunk.length;
        if (sizeBytes >= BODY_BYTES_MAX) done();
      });
      answer.once('end', done);
      answer.once('error', reject);
    });
    asked.end();
  });
}

if (import.meta.main) process.exitCode = await main(JSON.parse(process.argv[2]!) as HttpQuestion);
