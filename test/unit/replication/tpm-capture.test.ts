/** How what a TPM holds is taken with a cut: real files, and a machine that does what it is told. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { PauseReport, RunningMachine } from '../../../src/hypervisor/index.ts';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { nodeFiles as files } from '../../../src/lib/node-files.ts';
import { newId, systemRandom as random } from '../../../src/lib/random.ts';
import { type CutRecord, type CutTogether, cutGroup } from '../../../src/replication/index.ts';
import {
  sealedWithTpm,
  sealingTogether,
  type TpmTools,
  tpmOfStopped,
} from '../../../src/replication/tpm-capture.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

interface World {
  readonly directory: string;
  write(text: string): Promise<void>;
  /** What happens at the instant of the cut. */
  atCut: () => Promise<void>;
  /** What happens as soon as the guest runs again. */
  afterPause: () => Promise<void>;
  /** Whether the guest can be held still. */
  canPause: boolean;
  seals: number;
  readonly running: RunningMachine;
  readonly hypervisor: TpmTools['hypervisor'];
}

async function world(t: CleanUp, state = 'first'): Promise<World> {
  const directory = await temporaryDirectory(t);
  const write = (text: string) => writeFile(join(directory, 'tpm2-00.permall'), text);
  if (state !== '') await write(state);
  const here: World = {
    ...{ directory, write, canPause: true, seals: 0 },
    atCut: async () => undefined,
    afterPause: async () => undefined,
    running: {
      prepareCut: async () => ({
        seal: async () => {
          here.seals++;
          await here.atCut();
          return { pauseMs: 1 };
        },
      }),
    } as Partial<RunningMachine> as RunningMachine,
    hypervisor: {
      whilePaused: async (machines, _limitMs, work): Promise<PauseReport> => {
        if (!here.canPause) return { together: false, reason: 'no guard', pausedMs: 0, eachMs: [0] };
        await work();
        await here.afterPause();
        return { together: true, pausedMs: 4, eachMs: machines.map(() => 4) };
      },
    },
  };
  return here;
}

function sealed(here: World) {
  const { directory, running, hypervisor } = here;
  return sealedWithTpm({ files, hypervisor, clock }, directory, running, []);
}

function textOf({ tpm }: Pick<CutRecord, 'tpm'>): string | undefined {
  return tpm && Buffer.from(tpm.state, 'base64').toString();
}

test('F8 a guest that stands still: the state is that of the instant, whatever was before and comes after', async (t) => {
  const here = await world(t);
  here.atCut = () => here.write('at the cut');
  here.afterPause = () => here.write('after');
  const taken = await sealed(here);
  assert.equal(textOf(taken), 'at the cut');
  assert.deepEqual([taken.tpm?.captured, taken.tpm?.pauseMs, taken.pauseMs], ['paused', 4, 4]);
  assert.equal(here.seals, 1);
});

test('F8 a guest that cannot be held still is cut once; its state counts if it is the same before and after', async (t) => {
  const here = await world(t);
  here.canPause = false;
  const taken = await sealed(here);
  assert.deepEqual([taken.tpm?.captured, taken.tpm?.pauseMs, textOf(taken)], ['unchanged', 0, 'first']);
  here.atCut = () => here.write('second');
  const changed = await sealed(here);
  assert.equal(changed.tpm, undefined);
  assert.match(changed.withoutTpm!, /lacks what the TPM held: it changed during the cut/);
  assert.equal(here.seals, 2);
});

test('F8 a directory without a state costs the point that and nothing else', async (t) => {
  const here = await world(t, '');
  const taken = await sealed(here);
  assert.equal(taken.tpm, undefined);
  assert.match(taken.withoutTpm!, /holds no state of a TPM/);
  assert.deepEqual(await tpmOfStopped(files, here.directory), {});
  await here.write('x'.repeat(300_000));
  assert.match((await tpmOfStopped(files, here.directory)).withoutTpm!, /300000 bytes/);
  assert.match((await sealed(here)).withoutTpm!, /300000 bytes/);
});

test('F8 of several machines that are cut together the state is taken while all stand still', async (t) => {
  const here = await world(t);
  const member = (together: CutTogether) => {
    const { ready, seal } = sealingTogether(files, here.directory, together);
    return ready({ running: here.running, pointId: newId(clock, random), disks: [] }).then(seal);
  };
  const cut = async () => {
    let taken: Awaited<ReturnType<typeof member>> | undefined;
    const outcome = await cutGroup(
      { hypervisor: here.hypervisor, clock, random },
      {
        group: { groupId: newId(clock, random), name: 'shop' },
        limitMs: 1000,
        members: [
          {
            ...{ machineId: newId(clock, random), name: 'web' },
            cut: async (together) => {
              taken = await member(together);
              return { ...taken } as Partial<CutRecord> as CutRecord;
            },
          },
        ],
      },
    );
    return { apart: outcome.apart, taken: taken! };
  };
  here.atCut = () => here.write('at the cut');
  here.afterPause = () => here.write('after');
  const together = await cut();
  assert.equal(together.apart, undefined);
  assert.deepEqual([together.taken.tpm?.captured, textOf(together.taken)], ['paused', 'at the cut']);
  here.canPause = false;
  const apart = await cut();
  assert.ok(apart.apart);
  assert.match(apart.taken.withoutTpm!, /changed during the cut/);
});
