import { join } from 'node:path';
import { DemoSite } from './demo-site.ts';
import { freePorts } from './free-ports.ts';
import { say } from './say.ts';

/** What is done at the end, the last first. */
export type Ends = (() => Promise<void>)[];

/** Two sites as processes of their own, paired as their operators would do it; they end with the demonstration. */
export async function pairedDemoSites(directory: string, ends: Ends): Promise<[DemoSite, DemoSite]> {
  say.chapter('Two sites, paired by a one-time token');
  const ports = await freePorts(4);
  const sites: DemoSite[] = [];
  for (const [index, name] of ['alpha', 'beta'].entries()) {
    const site = new DemoSite(name, directory);
    const [peerPort, apiPort] = ports.slice(index * 2);
    await site.run([
      ...['site', 'init', '--name', site.name, '--host', '127.0.0.1', '--peer-port', String(peerPort)],
      ...['--api-port', String(apiPort), '--kit-to', join(directory, `${site.name}.recovery-kit.json`)],
    ]);
    await site.serve();
    ends.push(() => site.end('SIGTERM'));
    sites.push(site);
  }
  const [alpha, beta] = sites as [DemoSite, DemoSite];
  const { token } = (await beta.run(['site', 'token'])) as { token: string };
  await alpha.run(['site', 'pair', token]);
  return [alpha, beta];
}

/** Ends a process that the demonstration has started; one that has gone already is fine. */
export function endProcess(processId: number): void {
  try {
    process.kill(processId, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
