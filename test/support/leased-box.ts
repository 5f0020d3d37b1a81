import type { RouteBody } from '../../src/api/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import type { TestApi } from './api.ts';
import { BOX, pair } from './paired-sites.ts';
import { TestSite } from './served-sites.ts';
import { BY_HAND, sitesWithMachine, verifiedCopy } from './site-of-box.ts';
import type { CleanUp } from './temporary.ts';

const LEASE_MS = 5_000;

export const ASK_WITNESS: { params: { machine: string }; body: RouteBody<'failover.start'> } = {
  ...BOX,
  body: { askWitness: true, probes: [] },
};

/** Three sites that know each other, and «box», which runs at home by leases of the two others. */
export async function leasedBox(context: CleanUp) {
  const sites = await sitesWithMachine(context);
  const { t, directory, homeApi, awayApi } = sites;
  const witness = await TestSite.init(t, directory, 'witness');
  const witnessApi = await witness.serve();
  await pair(homeApi, witnessApi);
  await pair(awayApi, witnessApi);
  await homeApi.call('vm.protect', { ...BOX, body: { ...BY_HAND, target: 'away' } });
  await verifiedCopy(homeApi);
  await homeApi.call('vm.lease', { ...BOX, body: { witness: 'witness', leaseMs: LEASE_MS } });
  await homeApi.call('vm.start', BOX);
  const { protected: atHome } = await homeApi.call('vm.show', BOX);
  return { ...sites, witness, witnessApi, qmpPath: atHome!.qmpPath };
}

export async function leaseAt(api: TestApi) {
  return (await api.call('vm.show', BOX)).protected!.lease;
}

/** Waits until the guard has done this to the guest. */
export async function guestIs(site: TestSite, api: TestApi, wanted: 'runs' | 'stopped') {
  return site.until(async () => {
    const lease = await leaseAt(api);
    return lease?.guest === wanted ? lease : undefined;
  });
}

export async function tellAddress(of: TestSite, name: string, others: readonly TestApi[]): Promise<void> {
  const { port } = of.served.site.peerAddress;
  for (const api of others)
    await api.call('peer.address', { params: { peer: name }, body: { host: '127.0.0.1', port } });
}

/** Resolves when the processors of a guest stand still; the site must have let go of its monitor. */
export async function standsStill(qmpPath: string): Promise<void> {
  await using qmp = await QmpClient.connect({ path: qmpPath, clock: systemClock });
  const stood = Promise.withResolvers<void>();
  qmp.subscribe(({ event }) => {
    if (event === 'STOP') stood.resolve();
  });
  const { running } = await qmp.execute<{ running: boolean }>('query-status');
  if (running) await stood.promise;
}
