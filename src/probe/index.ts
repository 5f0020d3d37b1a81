/**
 * What a guest is asked, to know whether it runs as it should; pure.
 *
 * A *probe* is a question to a guest, with the time that it has for its answer: of its agent, its console, a port, a web server, a
 * database, a program. A *gate* of a recovery plan is a probe of one of its machines. A *pattern* is what an answer has to match,
 * in the language of RE2.
 *
 * Promised: what cannot be asked is known before anything is started (FAILOVER_PROBE_INVALID), at a site and without one;
 * a pattern is found in time linear in the text, whatever a guest says. Nothing here asks anybody: that is done in `failover`.
 */
export { PROBE_ERRORS } from './errors.ts';
export { type Pattern, patternOf } from './pattern.ts';
export {
  checkProbes,
  defaultProbes,
  limitOf,
  type NetworkProbe,
  type Probe,
  type ProbeResult,
  probingAddress,
  type SqlSystem,
  sqlClientOf,
} from './probe.ts';
