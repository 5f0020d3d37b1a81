import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Json } from '../../../src/lib/canonical-json.ts';
import type { Peer } from '../../../src/peer/index.ts';
import { afterHearing, type Claim, type Tenure } from '../../../src/recovery-point/index.ts';
import {
  followingSource,
  type Replica,
  type ReplicaRecord,
  type Replicas,
  tenureOfReplica,
  withTenure,
} from '../../../src/replica/index.ts';
import { type HomeMachines, NOTHING_AT_HOME, OfferedRights } from '../../../src/replication/index.ts';

const MACHINE = '01hzzzzzzzzzzzzzzzzzzzzzzz';
const POINT = '01hppppppppppppppppppppppp';
const [SOURCE, HERE, OTHER] = ['source', 'here', 'other'];

const claim = (epoch: number, siteId = SOURCE): Claim => ({ epoch, siteId: siteId! });

/** A replica of one point, and what its site answers to its peers. */
function site(fields: Partial<ReplicaRecord> = {}, home: HomeMachines = NOTHING_AT_HOME) {
  let changes = 0;
  const replica = {
    record: {
      ...{ machineId: MACHINE, machineName: 'box', sourceSiteId: SOURCE, epoch: 1, createdAtMs: 0 },
      ...{ retention: { types: {} }, ...fields },
    } as ReplicaRecord,
    newest: { statement: { pointId: POINT } },
    checkUsable: () => undefined,
    update: async (change: (record: ReplicaRecord) => Partial<ReplicaRecord> | undefined) => {
      const changed = change(replica.record);
      if (changed) replica.record = { ...replica.record, ...changed };
    },
  };
  const rights = new OfferedRights({
    home,
    siteId: HERE!,
    replicas: { need: () => replica as unknown as Replica } as unknown as Replicas,
    onChanged: () => {
      changes += 1;
    },
    hindrance: () => Promise.resolve(undefined),
  });
  const call = async (
    name: 'right.claim' | 'right.offer' | 'right.withdraw',
    body: object,
    from = SOURCE,
  ): Promise<Claim> => {
    const { signal } = new AbortController();
    const answer = await rights.calls[name]!({ siteId: from } as Peer, body as Json, signal);
    return (answer as unknown as { claim: Claim }).claim;
  };
  const offer = (epoch: number, fieldsOfOffer: object = {}, from = SOURCE) =>
    call(
      'right.offer',
      {
        ...{ machineId: MACHINE, claim: claim(epoch - 1), offer: claim(epoch, HERE), pointId: POINT },
        ...fieldsOfOffer,
      },
      from,
    );
  const hear = (epoch: number, from = SOURCE) =>
    call('right.claim', { machineId: MACHINE, claim: claim(epoch, from) }, from);
  const withdraw = (epoch: number, from = SOURCE) =>
    call('right.withdraw', { machineId: MACHINE, withdrawal: claim(epoch, from) }, from);
  return { replica, offer, withdraw, hear, changes: () => changes };
}

describe('a right that is offered to a site', () => {
  it('S0.17 is remembered, once, and changes nothing of who holds it', async () => {
    const { replica, offer, changes } = site();
    assert.deepEqual(await offer(2), claim(1), 'nobody has taken it');
    assert.deepEqual(await offer(2), claim(1));
    assert.deepEqual([replica.record.offer?.claim, replica.record.epoch, changes()], [claim(2, HERE), 1, 1]);
  });

  it('S0.17 is let go for good when it is withdrawn, and an offer that comes late is none', async () => {
    const { replica, offer, withdraw } = site();
    const offered = () => replica.record.offer?.claim;
    await offer(2);
    assert.deepEqual(await withdraw(3), claim(3));
    assert.deepEqual(await withdraw(3), claim(3), 'asked again');
    assert.deepEqual([replica.record.offer, replica.record.epoch], [undefined, 3]);
    assert.deepEqual(await offer(2), claim(3), 'what was withdrawn is said so');
    assert.equal(offered(), undefined);
    assert.deepEqual(await offer(4), claim(3), 'another one is welcome');
    assert.deepEqual(offered(), claim(4, HERE));
  });

  it('S0.17 is not withdrawn when it was taken before: the answer says by which claim', async () => {
    const { replica, offer, withdraw } = site();
    await offer(2);
    const holds = { state: 'holds', claim: claim(2, HERE) } as const;
    replica.record = { ...replica.record, ...withTenure(replica.record, holds) };
    assert.deepEqual(await withdraw(3), claim(2, HERE));
    assert.deepEqual(await offer(2), claim(2, HERE));
    assert.deepEqual(tenureOfReplica(replica.record, HERE!), holds);
  });

  it('S0.17 is the holder’s alone to offer, of its own machine, to this site, with the last state there', async () => {
    const { replica, offer, withdraw } = site();
    const refused: [Promise<unknown>, string][] = [
      [offer(2, { claim: claim(1, OTHER) }, OTHER), 'REPLICATION_NOT_YOURS'],
      [withdraw(3, OTHER), 'REPLICATION_NOT_YOURS'],
      [offer(2, { claim: claim(1, OTHER) }), 'REPLICATION_REQUEST_INVALID'],
      [offer(2, { offer: claim(2, OTHER) }), 'REPLICATION_REQUEST_INVALID'],
      [offer(2, { offer: claim(9, HERE) }), 'REPLICATION_REQUEST_INVALID'],
      [offer(2, { pointId: MACHINE }), 'REPLICATION_REQUEST_INVALID'],
      [offer(2, { offer: { epoch: -1, siteId: HERE } }), 'REPLICATION_REQUEST_INVALID'],
    ];
    for (const [asked, code] of refused) await assert.rejects(asked, { code });
    assert.equal(replica.record.offer, undefined);
    const forwarded = site({ viaSiteId: OTHER! });
    await assert.rejects(forwarded.offer(2), { code: 'REPLICATION_NOT_YOURS' });
  });
});

describe('a claim of the site that makes the points', () => {
  it('S0.17 ends every offer below it, and fences a site that holds the machine by a lower one', async () => {
    const { replica, offer, hear } = site();
    await offer(2);
    assert.deepEqual(await hear(1), claim(1), 'what is known already');
    assert.deepEqual(await hear(3), claim(3));
    const { offer: none, tenure } = replica.record;
    assert.deepEqual([none, tenure], [undefined, { state: 'follows', claim: claim(3) }]);

    for (const held of [
      { epoch: 2, tenure: { state: 'holds', claim: claim(2, HERE) } as const },
      // A failover of an earlier version raised the epoch, and said nothing else.
      { epoch: 2 },
    ]) {
      const here = site(held);
      assert.deepEqual(
        await here.hear(2, SOURCE),
        claim(2, SOURCE! > HERE! ? SOURCE : HERE),
        'order by site',
      );
      assert.deepEqual(await here.hear(3), claim(3));
      assert.deepEqual(here.replica.record.tenure!.state, 'fenced');
      assert.equal(here.replica.record.epoch, 3);
    }
  });

  it('S0.17 is that site’s own to make', async () => {
    const { hear, replica } = site();
    await assert.rejects(hear(3, OTHER), { code: 'REPLICATION_NOT_YOURS' });
    assert.equal(replica.record.epoch, 1);
  });
});

/** The machine that a replica here has become, and what it has heard itself. */
function machineAt(o: { readonly upon?: () => Replica; readonly onHeard?: () => Promise<void> } = {}) {
  const at = { isThere: true, tenure: { state: 'holds', claim: claim(2, HERE) } as Tenure };
  const home: HomeMachines = {
    ...NOTHING_AT_HOME,
    of: () =>
      at.isThere
        ? {
            ...{ tenure: at.tenure, settled: async () => undefined, concerns: () => true },
            hear: async (heard) => {
              at.tenure = afterHearing(at.tenure, HERE!, heard);
              await o.onHeard?.();
              return at.tenure;
            },
            upon: o.upon?.(),
            described: () => assert.fail('nobody asks'),
          }
        : undefined,
  };
  return { at, home };
}

describe('a claim that comes while a replica becomes a machine, or a machine its replica again', () => {
  const HOLDS = { epoch: 2, tenure: { state: 'holds', claim: claim(2, HERE) } } as const;

  it('F4 S0.17 is heard by the machine as well that is there when the replica has stored it', async () => {
    const { at, home } = machineAt();
    at.isThere = false;
    const { replica, hear } = site(HOLDS, home);
    const update = replica.update;
    replica.update = async (change) => {
      await update(change);
      // Made of what the replica had said before, by an adoption that looks at it no more.
      at.isThere = true;
    };
    assert.deepEqual(await hear(3), claim(3));
    assert.deepEqual([at.tenure.state, replica.record.tenure?.state], ['fenced', 'fenced']);
  });

  it('F4 S0.17 is heard by the replica as well before it is answered, and told of if the machine has gone by then', async () => {
    for (const isRemoved of [false, true]) {
      const { at, home } = machineAt({
        upon: () => replica as unknown as Replica,
        onHeard: async () => {
          if (!isRemoved) return;
          at.isThere = false;
          await replica.update(() => ({ adopted: undefined }));
        },
      });
      const { replica, hear, changes } = site({ ...HOLDS, adopted: 'branch' }, home);
      assert.deepEqual(await hear(3), claim(3));
      assert.deepEqual([at.tenure.state, replica.record.tenure?.state], ['fenced', 'fenced']);
      assert.equal(changes(), isRemoved ? 1 : 0);
    }
  });
});

describe('a replica whose source makes its copies in a higher epoch', () => {
  it('S0.17 S0.29 follows it there, unless it follows somebody else or is at home here', () => {
    const base = { epoch: 1, sourceSiteId: SOURCE! };
    assert.equal(followingSource(base, 3)?.epoch, 3);
    assert.equal(followingSource(base, 1), undefined);
    const held = { ...base, epoch: 2, tenure: { state: 'holds', claim: claim(2, HERE) } as const };
    assert.equal(followingSource(held, 3), undefined);
    const elsewhere = { ...base, epoch: 2, tenure: { state: 'follows', claim: claim(2, OTHER) } as const };
    assert.equal(followingSource(elsewhere, 3), undefined);
  });
});
