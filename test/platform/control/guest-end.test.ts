/** Guests whose agent takes a request to shut down and does nothing, and those that hear their power button no more than that. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endProcess } from '../../../src/control/machines/guest-end.ts';
import { QemuHypervisor } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { inGuest } from '../../support/failover-site.ts';
import { BOX, ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import { BY_HAND, heldAt, verifiedCopy } from '../../support/site-of-box.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const GRACE_MS = 10_000;
/** What the guest's agent runs when it is asked to shut down, and what acpid runs for the power button. */
const SHUTDOWN = '/sbin/shutdown';
const BUTTON = '/etc/acpi/PWRF/00000080';

/** Shell commands that leave nothing of a program of the guest but that it ends well, and that it was run. */
function deafened(program: string, trace: string): string {
  return `printf '#!/bin/sh\\necho x >> ${trace}\\n' > ${program}; chmod +x ${program}`;
}

describe('a guest that does not do what its agent says', { timeout: 240_000 }, () => {
  it('S0.17 has its power button pressed when half of its time has passed, and is handed over', async (context) => {
    const { t, directory, homeApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await inGuest(lab, deafened(SHUTDOWN, '/asked'));
    const beganMs = systemClock.monotonicMs();
    await resultOf(homeApi, await homeApi.call('failover.cede', { ...BOX, body: { graceMs: GRACE_MS } }));
    const tookMs = systemClock.monotonicMs() - beganMs;
    assert.ok(tookMs >= GRACE_MS / 2, `it went off after ${tookMs} ms: nobody waited for the agent`);
    assert.equal(await heldAt(homeApi), 'offered');
  });

  it('S0.17 and not what its power button says is not handed over, and runs on; with a word for that its power is cut', async (context) => {
    const { t, directory, homeApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await inGuest(lab, `${deafened(SHUTDOWN, '/asked')}; ${deafened(BUTTON, '/pressed')}`);
    const asked = await homeApi.call('failover.cede', { ...BOX, body: { graceMs: 6_000 } });
    const { failure } = await ended(homeApi, asked);
    assert.equal(failure?.code, 'MACHINE_STOP_TIMEOUT', JSON.stringify(failure));
    assert.equal(await heldAt(homeApi), undefined);
    assert.equal(await inGuest(lab, 'cat /asked /pressed'), 'x\nx', 'each was asked once');
    const said = { ...BOX, body: { powerOff: true } };
    await resultOf(homeApi, await homeApi.call('failover.cede', said));
    assert.equal(await heldAt(homeApi), 'offered');
  });

  it('S0.17 loses its power when its time is up, where it may not run any more', async (t) => {
    const { lab } = await someonesMachine(t, await temporaryDirectory(t));
    await inGuest(lab, `${deafened(SHUTDOWN, '/asked')}; ${deafened(BUTTON, '/pressed')}`);
    const { qmpPath, agentPath } = lab;
    const running = await new QemuHypervisor({ clock: systemClock }).attach({ qmpPath, agentPath });
    const tools = { clock: systemClock, log: silentLog };
    const beganMs = systemClock.monotonicMs();
    const outcome = await endProcess(tools, running, 4_000, new AbortController().signal);
    assert.equal(outcome, 'powered-off');
    assert.ok(systemClock.monotonicMs() - beganMs >= 4_000, 'it had its time');
    await running.gone;
  });
});
