import Type from 'typebox';
import { Done } from './common.ts';
import { MachineView } from './machines.ts';
import {
  ConfirmOriginRequest,
  FloorRequest,
  FloorView,
  ForwardReplicaRequest,
  OriginView,
} from './replicas.ts';
import { ofMachine, ofTarget, plain, type Route } from './route-shape.ts';

/** A site whose points others forward here, by id. */
const Origin = Type.Object({ origin: Type.String({ minLength: 26, maxLength: 26 }) });
const ofOrigin = { ...plain, params: Origin };

/** What is done with replicas as wholes, and with the sites that their points come from. */
export const REPLICA_ROUTES = {
  'replica.remove': {
    ...ofMachine,
    method: 'DELETE',
    path: '/machines/:machine/replica',
    answer: Done,
  },
  /** Begins it, or changes what the other site gets. */
  'replica.forward': {
    ...ofMachine,
    method: 'POST',
    path: '/machines/:machine/forwards',
    body: ForwardReplicaRequest,
    answer: MachineView,
  },
  'replica.unforward': {
    ...ofTarget,
    method: 'DELETE',
    path: '/machines/:machine/forwards/:target',
    answer: MachineView,
  },
  'replica.floor': { ...plain, method: 'GET', path: '/retention-floor', answer: FloorView },
  'replica.changeFloor': {
    ...plain,
    method: 'PATCH',
    path: '/retention-floor',
    body: FloorRequest,
    answer: FloorView,
  },
  'origin.list': { ...plain, method: 'GET', path: '/origins', answer: Type.Array(OriginView) },
  'origin.confirm': {
    ...ofOrigin,
    method: 'POST',
    path: '/origins/:origin/confirmation',
    body: ConfirmOriginRequest,
    answer: OriginView,
  },
  'origin.forget': { ...ofOrigin, method: 'DELETE', path: '/origins/:origin', answer: Done },
} as const satisfies Readonly<Record<string, Route>>;
