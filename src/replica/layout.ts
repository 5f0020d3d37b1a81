import { join } from 'node:path';
import { assert } from '../lib/assert.ts';
import { type Generation, generationName } from '../lib/generations.ts';
import { isId } from '../lib/random.ts';

/** Where the parts of one machine's replica lie. Only ids become path parts, never names. */
export class ReplicaLayout {
  readonly directory: string;

  constructor(dataDirectory: string, machineId: string, generation?: Generation) {
    assert(isId(machineId), 'a machine id names a directory');
    this.directory = join(dataDirectory, 'replicas', generationName(machineId, generation));
  }

  get record(): string {
    return join(this.directory, 'replica.json');
  }

  get disks(): string {
    return join(this.directory, 'disks');
  }

  disk(diskId: string): string {
    return join(this.disks, diskId);
  }

  /** The differencing disk of a point; the oldest one is complete. */
  layer(diskId: string, pointId: string): string {
    return join(this.disk(diskId), layerName(pointId));
  }

  /** Digests of the blocks that the layer changed. */
  leaves(diskId: string, pointId: string): string {
    return join(this.disk(diskId), `${pointId}.leaves`);
  }

  get points(): string {
    return join(this.directory, 'points');
  }

  manifest(pointId: string): string {
    return join(this.points, `${pointId}.json`);
  }

  get incoming(): string {
    return join(this.directory, 'incoming');
  }

  session(session: string): string {
    assert(isId(session), 'a session id names a directory');
    return join(this.incoming, session);
  }

  /** A seed that is being imported. */
  get seed(): string {
    return join(this.directory, 'seed');
  }

  get intents(): string {
    return join(this.directory, 'intents');
  }

  /** Files that belong to no point and are no scratch of ours: kept for a person to look at. */
  get quarantine(): string {
    return join(this.directory, 'quarantine');
  }

  get branches(): string {
    return join(this.directory, 'branches');
  }

  branch(branchId: string): string {
    assert(isId(branchId), 'a branch id names a directory');
    return join(this.branches, branchId);
  }

  /** How far each site is that the points of this replica are forwarded to. */
  get forwards(): string {
    return join(this.directory, 'forwards');
  }

  forward(siteId: string): string {
    assert(isId(siteId), 'a site id names a file');
    return join(this.forwards, `${siteId}.json`);
  }

  /** Digests of what such a site has acknowledged. */
  forwardedLeaves(siteId: string): string {
    assert(isId(siteId), 'a site id names a directory');
    return join(this.forwards, siteId);
  }

  proofs(pointId: string): string {
    return join(this.directory, 'proofs', pointId);
  }
}

/** The name of a layer as it stands in its child's header: a sibling in the same directory. */
export function layerName(pointId: string): string {
  return `${pointId}.qcow2`;
}

/** The point that a layer of this name belongs to; undefined if it is not the name of a layer. */
export function pointOfLayer(name: string): string | undefined {
  const pointId = name.endsWith('.qcow2') ? name.slice(0, -'.qcow2'.length) : '';
  return isId(pointId) ? pointId : undefined;
}
