import type { Failure } from '../../lib/errors.ts';
import { type DrillMachine, type DrillStanding, isMeant } from '../../recovery-point/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

const ABOUT = ['failed', 'unproven', 'impossible', 'unreadable'] as const;
type About = (typeof ABOUT)[number];

/** Nothing is said of the drills of a machine any more. */
export function clearDrillAlerts(alerts: Pick<AlertSink, 'clear'>, machineId: string): void {
  for (const about of ABOUT) alerts.clear(keyOf(about, machineId));
}

/** What there is to know of a machine cannot be read (`failure`), or can be again. */
export function tellOfReading(alerts: AlertSink, machineId: string, failure: Failure | undefined): void {
  const key = keyOf('unreadable', machineId);
  if (failure) alerts.raise(key, 'warning', failure, machineId);
  else alerts.clear(key);
}

export interface DrillSituationOfSite {
  readonly budgetBytes: number;
  /** Why no drill of any machine begins. */
  readonly held: string | undefined;
}

/** Alerts for points that do not come up, and for machines whose proof is missing or cannot be had; each cleared when it is over. */
export function tellOfDrills(
  alerts: AlertSink,
  machineName: string,
  machine: DrillMachine,
  standing: DrillStanding,
  site: DrillSituationOfSite,
): void {
  const { machineId } = machine;
  const { failing, impossible, isOverdue, debt } = standing;
  const tell = (about: About, isSo: boolean, say: () => Parameters<AlertSink['raise']>) => {
    if (isSo) alerts.raise(...say());
    else alerts.clear(keyOf(about, machineId));
  };
  tell('failed', failing !== undefined, () => {
    const said = `point ${failing!.sequence} of ${machineName} does not pass its drill: ${failing!.reason}`;
    const context = { machineId, sequence: failing!.sequence };
    const failure = controlFailure('DRILL_FAILED', said, { context });
    return [keyOf('failed', machineId), 'critical', failure, machineId];
  });
  tell('impossible', impossible !== undefined, () => {
    const said = `no point of ${machineName} can be drilled: ${impossibleWords(machine, standing, site)}`;
    const failure = controlFailure('DRILL_IMPOSSIBLE', said, { context: { machineId } });
    return [keyOf('impossible', machineId), 'warning', failure, machineId];
  });
  tell('unproven', isOverdue && debt !== undefined, () => {
    const since = new Date(debt!.sinceMs).toISOString();
    const why = hindranceWords(machine, standing, site);
    const said = `no point of ${machineName} that arrived since ${since} is proven: ${why}`;
    const failure = controlFailure('POINT_UNPROVEN', said, { context: { machineId } });
    return [keyOf('unproven', machineId), 'warning', failure, machineId];
  });
}

/** Why a proof is missing, as the end of a sentence. */
export function hindranceWords(
  machine: DrillMachine,
  standing: DrillStanding,
  site: DrillSituationOfSite,
): string {
  if (standing.impossible) return impossibleWords(machine, standing, site);
  if (standing.hasNoneMeant) {
    const { copyTypes } = machine.policy;
    const wanted = copyTypes ? `of type ${copyTypes.join(' or ')}` : 'application-consistent';
    return `none of its points is ${wanted}`;
  }
  const isFailing = standing.failing && machine.points.some((point) => isMeant(machine.policy, point));
  if (standing.waiting === 0) return isFailing ? standing.failing!.reason : 'nothing is tried any more';
  if (machine.isPaused) return 'its drills are paused';
  if (site.held) return site.held;
  return standing.hindrance ?? standing.failing?.reason ?? 'its turn has not come';
}

function impossibleWords(
  { memoryBytes }: DrillMachine,
  { impossible }: DrillStanding,
  { budgetBytes }: DrillSituationOfSite,
): string {
  if (impossible === 'nothing-to-ask') return 'it has no guest agent, and its drills have no probes';
  return `it needs ${inMiB(memoryBytes)}, and all drills together may take ${inMiB(budgetBytes)}`;
}

function inMiB(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

function keyOf(about: About, machineId: string): string {
  return `drill-${about}:${machineId}`;
}
