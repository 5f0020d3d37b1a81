import type { TestContext } from 'node:test';
import { type Answer, fakeSite } from './fake-site.ts';
import { run } from './fake-world.ts';

/** A site that gives one answer, and commands whose last request to it is told. */
export async function asking(
  t: TestContext,
  body: unknown,
  answer: (body: unknown) => Answer = (all) => ({ body: all }),
) {
  const site = await fakeSite(t, () => answer(body));
  const ask = async (...args: string[]) => {
    const ran = await run(['--data', site.dataDirectory, ...args]);
    const { method, path, body: sent } = site.asked.at(-1) ?? { method: '', path: '', body: '' };
    return { ...ran, asked: `${method} ${path}`, sent: sent === '' ? {} : JSON.parse(sent) };
  };
  return { ask, site };
}
