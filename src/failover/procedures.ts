import type { StepReport } from './report.ts';

/** A step of what people begin, as docs/failover.md tells of it. */
export interface ProcedureStep {
  readonly what: string;
  /** Empty: nothing. */
  readonly durable: string;
  /** What is so if everything stops there, and what becomes of it. */
  readonly stopped: string;
}

/** A step whose time the report of the failover has, under that name. */
export interface ReportedStep extends ProcedureStep {
  readonly name: StepReport['name'];
}

const NEW_BRANCH: ReportedStep = {
  name: 'branch',
  what: 'an empty layer for each disk is made upon the point’s',
  durable: 'the branch; its point can neither change nor go',
  stopped: 'the branch is removed; nothing was written in it',
};

/** What `failover test` does with a point. */
export const TEST_STEPS: readonly ReportedStep[] = [
  NEW_BRANCH,
  {
    name: 'network',
    what: 'its NICs are connected inside a network namespace without a way out',
    durable: 'before that: that it is being done',
    stopped: 'the network and the branch are removed',
  },
  {
    name: 'start',
    what: 'its machine is started',
    durable: 'before that: that it is being done',
    stopped: 'the machine is ended, and the branch removed; the point is what it was',
  },
  {
    name: 'probes',
    what: 'its guest is asked until it answers, or its time is over',
    durable: '',
    stopped: 'as above',
  },
  {
    name: 'picture',
    what: 'a fresh word is drawn on its console, and read back from the picture of it',
    durable: '',
    stopped: 'as above',
  },
  {
    name: 'assertions',
    what: 'the programs are run in it by which the point claims to be consistent for its applications; only if it has come up, and the point claims that',
    durable: '',
    stopped: 'as above',
  },
  {
    name: 'clean-up',
    what: 'the machine is ended, and branch and network are removed; with `--keep` both stay',
    durable: 'before that: the signed proof beside the point; with `--keep` that it came up, or did not',
    stopped: 'the proof is there; what was to go is removed when the site starts again',
  },
];

const BROUGHT_UP: readonly ReportedStep[] = [
  {
    ...NEW_BRANCH,
    what: `${NEW_BRANCH.what}: the best one’s, then the next one’s if it does not come up`,
  },
  {
    name: 'network',
    what: 'its NICs are connected as the person has said, or stay unplugged',
    durable: 'before that: that it is being done, and to what',
    stopped: 'what was connected and the branch are removed; the right is held as before',
  },
  {
    name: 'start',
    what: 'its machine is started',
    durable: 'before that: that it is being done',
    stopped:
      'people may be at work in it: the machine runs on, and the branch is what it was; one that had ended by then is booted again with `failover restart`',
  },
  {
    name: 'probes',
    what: 'its guest is asked until it answers, or its time is over',
    durable: '',
    stopped: 'as above',
  },
  { name: 'picture', what: 'the picture of its console is taken', durable: '', stopped: 'as above' },
  {
    name: 'clean-up',
    what: 'it runs on, if it has come up; else its machine is ended, and what it wrote stays',
    durable: 'that it came up, or did not',
    stopped: 'it is done',
  },
];

/** What `failover start` does, without the other site. */
export const UNPLANNED_STEPS: readonly ReportedStep[] = [
  {
    name: 'fence',
    what: 'the right is seized, on the word of a person, or by votes: looked at before is whether the machine would start',
    durable:
      'that it is held here, in the next epoch, and on whose word: copies of the old source are refused from now on',
    stopped: 'this site holds it, and nothing runs: `failover start` begins again',
  },
  ...BROUGHT_UP,
];

/** What `failover take` does, at the site that a machine is handed over to. */
export const TAKE_STEPS: readonly ReportedStep[] = [
  {
    name: 'fence',
    what: 'the offer is taken: looked at before is whether the machine would start',
    durable:
      'that it is held here, by the claim that was offered; the other site hears of it within two seconds, and follows',
    stopped: 'this site holds it, and nothing runs: `failover take` begins again',
  },
  {
    ...NEW_BRANCH,
    what: `${NEW_BRANCH.what}: that of the offer, which holds the last state, and no other`,
  },
  ...BROUGHT_UP.slice(1),
];

/** What `failover cede` does, where the machine runs; `name` is what its job says that it is doing. */
export const CEDE_STEPS = {
  ask: {
    name: 'asking the other site',
    what: 'the other site is asked what it knows of the right, and whether the machine would start there',
    durable: '',
    stopped: 'the guest knows of nothing',
  },
  copy: {
    name: 'copying what was written so far',
    what: 'what was written so far is copied',
    durable: 'a point more',
    stopped: 'the guest knows of nothing',
  },
  shutDown: {
    name: 'shutting the guest down',
    what: 'the guest shuts down, in the time that it is given (`--grace`, two minutes if absent): asked by its agent; by its power button, if the agent has not taken that after three seconds, or has taken it and the guest runs when half of the time has passed. If it runs when all of it has passed, the handover fails (`MACHINE_STOP_TIMEOUT`). If a person said so (`--power-off`), its power is cut at once instead',
    durable: '',
    stopped:
      'the job goes on when the site starts again, unless somebody has decided otherwise. If it fails, or a person cancels it, a machine of the site’s own that has ended is started again; one that somebody else started stays off, and so does a guest that had been asked and ends later. A job that was cancelled does not go on: the site that starts again starts the machine again',
  },
  copyLast: {
    name: 'copying what was written last',
    what: 'what was written last is copied, and acknowledged by the other site; then the right is offered: only if the machine is off, nothing is uncopied, and the other site has acknowledged the last copy, all looked at beside no other change of the machine',
    durable: 'the last point; then that the site cedes',
    stopped:
      'as above; nobody runs the machine once it is offered, and a warning says so until it is taken or withdrawn',
  },
  tell: {
    name: 'telling the other site',
    what: 'the other site is told, every two seconds until it has taken it',
    durable: 'there: the offer, with the point that holds the last state',
    stopped: 'it is told again, also when nobody waits for it',
  },
} as const satisfies Readonly<Record<string, ProcedureStep & { readonly name: string }>>;

/** What `failover undo` does where the machine was brought up, and then `failover withdraw` where it was. */
export const UNDO_STEPS: readonly (ReportedStep | (ProcedureStep & { readonly name: 'withdraw' }))[] = [
  {
    name: 'shut-down',
    what: 'what failovers of it run here ends: asked to shut down by its power button, its power cut after a minute (`--grace`, `--now`). Looked at before: it was brought up here and not adopted, and the site where it was brings its points itself',
    durable: 'the branch is stopped; what was written in it stays, until a person discards it',
    stopped:
      'this site holds the right, and `failover restart` boots the branch again. The job goes on when the site starts again',
  },
  {
    name: 'give-up',
    what: 'the right is given up: only while nothing of the machine is being started here, or adopted',
    durable:
      'this site follows its own claim: nobody holds the machine, and it is not started here any more; what is found running of it is ended',
    stopped:
      'a warning says so at this site. `failover start` here seizes again, on a person’s word, if the other site is down after all',
  },
  {
    name: 'withdraw',
    what: 'where the machine was, when its guest has ended, if it was fenced: the other site is asked to follow a claim of this one, an epoch above its own',
    durable: 'there: that it follows that claim, and takes its copies again; then here: that it is held',
    stopped: 'this site does not hold it yet; it asks again, by the same claim, and gets the same answer',
  },
];

/** What `failover adopt`, the commit, does with a branch that a failover has brought up. */
export const ADOPT_STEPS: readonly ProcedureStep[] = [
  {
    what: 'looked at: the branch was brought up by a failover, its site holds the right, no other branch of the machine is at work, no merge is under way',
    durable: '',
    stopped: 'nothing has happened',
  },
  {
    what: 'the replica is marked: nothing is received into it or merged from now on, so that what the machine lies upon stays as it is',
    durable: '`adopted` in `replica.json`',
    stopped:
      'the site finds no record of the machine when it starts again, and takes the mark away: the branch is what it was',
  },
  {
    what: 'the machine is recorded, with the branch as its own files and the networks that it is plugged into; a higher claim that the replica has heard of meanwhile the machine hears as well',
    durable: '`machine.json`, in a generation of its own',
    stopped: 'it is done',
  },
];

/** How a machine that was brought up and adopted elsewhere is protected again, and brought home. */
export const TURN_STEPS: readonly ProcedureStep[] = [
  {
    what: '`vm protect` where the machine is at home now, to the site where it was',
    durable: 'here: that it is replicated there',
    stopped: 'nothing has changed there; the protection goes on when the site starts again',
  },
  {
    what: 'that site hears of the claim',
    durable: 'there: that it is fenced, or follows',
    stopped: 'it does not start the machine again, and is told again',
  },
  {
    what: 'there the machine ends, if it runs, and what it wrote is set apart',
    durable: 'there: that it follows; its disks stay as they are',
    stopped: 'it is fenced: what it wrote is in its disks, and it is set apart later',
  },
  {
    what: 'the first copy: only what differs from those disks crosses the wire. The finished base is read back and compared with the signed roots',
    durable: 'there: what has arrived, frame by frame; then the point',
    stopped:
      'the copy goes on behind what is durable there; the machine works on, protected as far as it was before',
  },
  {
    what: 'home again: `failover cede` here and `failover take` there, step by step as above',
    durable: 'as above',
    stopped: 'as above',
  },
  {
    what: '`failover adopt` there',
    durable: 'as above: at home there',
    stopped: 'it runs there as a branch; this site follows, and keeps its disks',
  },
];
