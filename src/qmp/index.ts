/**
 * Talking to a running QEMU and to the guest inside it.
 *
 * Nouns. A *monitor* is the socket on which QEMU takes commands (QMP) and tells events. The *guest agent* is
 * a program in the guest, reached through a virtio channel whose host side is another socket. To *freeze* a
 * guest is to let its agent flush and hold all its file systems; to *thaw* lets them go. A *freeze guard* is a
 * small process that holds the agent's socket during one freeze and thaws whatever becomes of its parent. A *pause
 * guard* does the same for machines whose processors are stopped: it continues them. Both are *guard children* of the process
 * that needs them, as is any other process that ends something in its parent's stead.
 *
 * Promises. Every command ends: by an answer, a typed failure, a time limit or an abort. A connection that
 * breaks ends everything that waits on it, with QMP_DISCONNECTED or QMP_AGENT_DISCONNECTED. Nothing that
 * comes over a socket is trusted: lines have a longest length, reading is linear in the bytes read, memory is
 * bounded, and shapes are checked; in particular nothing a guest says can end this process. After
 * a freeze was sent, somebody keeps thawing until the guest says that it is thawed: the guard, or this process
 * if the guard was killed; when both were, `thawAbandoned` is for whoever comes next.
 *
 * What a caller must know. QEMU serves one client per socket; the next one connects and hears nothing
 * (QMP_NO_GREETING, QMP_AGENT_NO_ANSWER). So a `GuestAgent` is closed before a `FreezeGuard` is started.
 * Strings from a guest are a stranger's: show them as text, never as markup, commands or paths. That a freeze
 * was good is known only from `thaw` with `inTime`: a copy made under it is called consistent only then.
 *
 * Relies on `lib` (clock, chance, failures), on QEMU ≥ 7.2 and on any agent that knows
 * `guest-sync-delimited` (QEMU ≥ 1.1). Sources: QEMU's `docs/interop/qmp-spec`, `qapi/`, `qga/qapi-schema.json`.
 */

export type { GuestFileSystem, GuestInterface, GuestOsInfo } from './agent-values.ts';
export { QMP_ERRORS } from './errors.ts';
export type { FreezeGuardOptions, ThawResult } from './freeze-guard.ts';
export { FreezeGuard } from './freeze-guard.ts';
export type { ThawCause } from './freeze-messages.ts';
export { GuardChild } from './guard-child.ts';
export { type Impulses, impulsesOf } from './guard-impulses.ts';
export type { AgentCallOptions, AgentConnectOptions, ExecOptions, ExecResult } from './guest-agent.ts';
export { GuestAgent } from './guest-agent.ts';
export type { QmpEvent, QmpGreeting } from './messages.ts';
export { PauseGuard } from './pause-guard.ts';
export { persistently } from './persistently.ts';
export type { QmpConnectOptions } from './qmp-client.ts';
export { QmpClient } from './qmp-client.ts';
export { thawAbandoned } from './thaw.ts';
