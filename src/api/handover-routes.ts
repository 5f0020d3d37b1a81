import { AdoptRequest, CedeRequest, TakeRequest, UndoRequest, WithdrawRequest } from './failovers.ts';
import { MachineView } from './machines.ts';
import { ofMachine, type Route } from './route-shape.ts';
import { JobView } from './site.ts';

/** How the right to run a machine changes hands between two sites, and how a failover is undone or committed. */
export const HANDOVER_ROUTES = {
  'failover.cede': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/cession',
    body: CedeRequest,
    answer: JobView,
  },
  'failover.withdraw': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/cession/withdrawal',
    body: WithdrawRequest,
    answer: MachineView,
  },
  'failover.undo': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/undoing',
    body: UndoRequest,
    answer: JobView,
  },
  'failover.take': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/takeover',
    body: TakeRequest,
    answer: JobView,
  },
  'failover.adopt': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/adoption',
    body: AdoptRequest,
    answer: MachineView,
  },
} as const satisfies Readonly<Record<string, Route>>;
