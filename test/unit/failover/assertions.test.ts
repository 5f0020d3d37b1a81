import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { isApplicationProofOf, storeApplicationProof } from '../../../src/failover/application-proof.ts';
import { claimVerdictOf, runAssertions } from '../../../src/failover/assertions.ts';
import { candidatesOf, pointProofs } from '../../../src/failover/candidates.ts';
import type { GuestCommandReport } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { seedSites } from '../../support/seed-sites.ts';

function claim(name: string) {
  return { name, command: `/bin/${name}`, arguments: ['-n'], limitMs: 1000 };
}

const ENDED = { outcome: 'ended' as const, output: '' };

async function asked(...answers: GuestCommandReport[]) {
  const commands: unknown[] = [];
  const machine = {
    runInGuest: async (command: unknown) => {
      commands.push(command);
      return answers[commands.length - 1]!;
    },
  };
  const claims = answers.map((_, index) => claim(`a${index}`));
  return { commands, reports: await runAssertions(machine, claims, systemClock) };
}

test('S0.6 every assertion is asked in its order, and holds if its program ends with 0', async () => {
  const { commands, reports } = await asked(
    { ...ENDED, exitCode: 0 },
    { ...ENDED, exitCode: 2, output: 'two rows are missing' },
    { outcome: 'lost', reason: 'it still runs' },
    { outcome: 'not-begun', reason: 'no such file' },
  );
  assert.deepEqual(commands[1], { command: '/bin/a1', arguments: ['-n'], limitMs: 1000 });
  assert.deepEqual(
    reports.map(({ name, outcome }) => [name, outcome]),
    [
      ['a0', 'held'],
      ['a1', 'failed'],
      ['a2', 'failed'],
      ['a3', 'not-run'],
    ],
  );
  assert.equal(reports[1]!.output, 'two rows are missing');
});

test('S0.6 one assertion that fails refutes the claim; one that could not be asked leaves it open', async () => {
  const held: GuestCommandReport = { ...ENDED, exitCode: 0 };
  const failed: GuestCommandReport = { ...ENDED, exitCode: 1 };
  const missing: GuestCommandReport = { outcome: 'not-begun', reason: 'no such file' };
  const verdict = async (...answers: GuestCommandReport[]) =>
    claimVerdictOf((await asked(...answers)).reports);
  assert.equal(await verdict(), undefined);
  assert.equal(await verdict(held, held), 'held');
  assert.equal(await verdict(held, missing), 'open');
  assert.equal(await verdict(missing, failed, held), 'failed');
});

test('S0.6 an assertion is not asked any more when nobody wants to know', async () => {
  const machine = { runInGuest: () => assert.fail('it was asked') };
  await assert.rejects(runAssertions(machine, [claim('a')], systemClock, AbortSignal.abort()));
});

/** Three points of a machine: two that strive for applications and claim something, then a crash-consistent one. */
async function points(t: TestContext) {
  const sites = await seedSites(t);
  const { machine, write } = await sites.addMachine({ seed: false });
  const CHECKED = { name: 'checked', aim: 'application' as const, assertions: [claim('rows')] };
  await machine.changeProtection({ copyTypes: [CHECKED] });
  const pointIds: string[] = [];
  for (const type of ['checked', 'checked', 'crash']) {
    await write(0);
    pointIds.push((await machine.cut(type)).cutId);
    while ((await machine.replicate(sites.target)).kind !== 'nothing');
  }
  const replica = await sites.openReplica(machine.record.machineId);
  // A machine that is off reaches crash consistency alone: what a running one reaches is put in its place.
  for (const { statement } of replica.points.slice(0, 2)) statement.consistency = 'application';
  return { replica, pointIds };
}

test('S0.6 S0.7 a refuted point counts as crash-consistent until it holds again; the claim is in its signed statement', async (t) => {
  const { replica, pointIds } = await points(t);
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const signer = { keyId: 'ed25519:test', sign: (bytes: Uint8Array) => sign(null, bytes, privateKey) };
  const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString();
  const [older, newer] = pointIds.map((pointId) => replica.point(pointId));
  assert.deepEqual(newer!.statement.assertions, [claim('rows')]);
  assert.equal(replica.point(pointIds[2]!).statement.assertions, undefined);
  const best = async () => {
    const choice = { wish: { atLeast: 'application' as const, applicationWorthMs: 0, provenWorthMs: 0 } };
    return candidatesOf(replica, choice, await pointProofs(nodeFiles, replica))[0]?.pointId;
  };
  const { pointId } = newer!.statement;
  assert.equal(await best(), pointId);

  const proof = (verdict: 'held' | 'failed', statementDigest = newer!.statementDigest) => ({
    ...{ pointId, statementDigest, verdict, startedAtMs: 1 },
    assertions: [{ name: 'rows', outcome: verdict, tookMs: 1 }],
  });
  const signed = await storeApplicationProof({ files: nodeFiles, signer }, replica, proof('failed'));
  assert.equal(await best(), older!.statement.pointId);
  const about = { statementDigest: newer!.statementDigest, publicKey: pem };
  assert.equal(isApplicationProofOf(signed, about), true);
  const forged = { ...signed, proof: { ...signed.proof, verdict: 'held' as const } };
  assert.equal(isApplicationProofOf(forged, about), false);
  assert.equal(isApplicationProofOf(signed, { ...about, statementDigest: older!.statementDigest }), false);

  await storeApplicationProof({ files: nodeFiles, signer }, replica, proof('held'));
  assert.equal(await best(), pointId);
  await storeApplicationProof({ files: nodeFiles, signer }, replica, proof('failed', '0'.repeat(64)));
  assert.equal(await best(), pointId, 'a proof of another statement says nothing');
});
