import { type DestinationStream, type Logger, pino } from 'pino';
import { Failure } from '../lib/errors.ts';
import type { Log, LogFields } from '../lib/log.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** A log of JSON lines, one for each entry: `level`, `time` (ISO 8601, UTC), `event`, and the fields. */
export function jsonLog(o: { level: LogLevel; destination: DestinationStream }): Log {
  const options = {
    level: o.level,
    base: null,
    messageKey: 'event',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: errorFields },
  };
  return logOf(pino(options, o.destination));
}

function logOf(logger: Logger): Log {
  return {
    info: (event, fields) => logger.info(fields ?? {}, event),
    warn: (event, fields) => logger.warn(fields ?? {}, event),
    error: (event, fields) => logger.error(fields ?? {}, event),
    with: (fields: LogFields) => logOf(logger.child(fields)),
  };
}

/** A failure by its record, anything else with its stack: that one is a bug. */
function errorFields(error: unknown): unknown {
  if (error instanceof Failure) return { ...error.toJSON(), cause: error.cause && String(error.cause) };
  if (error instanceof Error) return { message: error.message, stack: error.stack };
  return String(error);
}
