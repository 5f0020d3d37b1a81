import { Done } from './common.ts';
import { LeaseEndRequest, LeaseForgetRequest, LeaseRequest } from './leases.ts';
import { MachineView } from './machines.ts';
import { ofMachine, type Route } from './route-shape.ts';

/** What a person does with the leases of a machine; part of `ROUTES`. */
export const LEASE_ROUTES = {
  'vm.lease': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/lease',
    body: LeaseRequest,
    answer: MachineView,
  },
  'vm.lease.end': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/lease',
    body: LeaseEndRequest,
    answer: MachineView,
  },
  /** At a witness: it knows nothing of the leases of a machine any more, by whose name or id they are meant. */
  'lease.forget': {
    ...ofMachine,
    method: 'DELETE',
    path: '/leases/:machine',
    body: LeaseForgetRequest,
    answer: Done,
  },
} as const satisfies Readonly<Record<string, Route>>;
