import { commitLine, describeCommit, describeMachine, machineLine } from '../../scripts/machine.ts';

/** Says on what machine and of which commit the numbers are that follow. */
export async function printHead(): Promise<void> {
  console.log(machineLine(await describeMachine()));
  console.log(`commit ${commitLine(await describeCommit(import.meta.dirname))}`);
}
