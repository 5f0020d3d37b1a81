import type { MachineView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { printMachine } from '../views/machine-view.ts';

/** What a command answers that has changed a machine: the machine as it is now. */
export function shown(context: Context, machine: MachineView): Report {
  return { document: machine, print: (page) => printMachine(page, machine, context.nowMs) };
}
