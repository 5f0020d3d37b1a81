import type { DoctorCheck } from '../../api/index.ts';

/** What a check has found, and what to do about it. */
export type Finding = Omit<DoctorCheck, 'check'>;

export const ok = (found: string): Finding => ({ verdict: 'ok', found });
export const warning = (found: string, remedy: string): Finding => ({ verdict: 'warning', found, remedy });
export const failed = (found: string, remedy: string): Finding => ({ verdict: 'failed', found, remedy });
