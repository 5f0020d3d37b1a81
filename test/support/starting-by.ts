import type { Hypervisor } from '../../src/hypervisor/index.ts';

/** A hypervisor that starts machines in another way, and is the one given in all else. */
export function startingBy(hypervisor: Hypervisor, start: Hypervisor['start']): Hypervisor {
  return {
    acceleration: () => hypervisor.acceleration(),
    offer: (media) => hypervisor.offer(media),
    attach: (sockets) => hypervisor.attach(sockets),
    processesOf: (runDirectory) => hypervisor.processesOf(runDirectory),
    end: (runDirectory) => hypervisor.end(runDirectory),
    whilePaused: (machines, limitMs, work) => hypervisor.whilePaused(machines, limitMs, work),
    start,
  };
}
