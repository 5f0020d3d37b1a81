import { join } from 'node:path';
import Type from 'typebox';
import { Value } from 'typebox/value';
import { CLIENT_FILES } from '../api/index.ts';
import { isFailure } from '../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../lib/files.ts';
import { cliFailure } from './errors.ts';

const FILE_BYTES_MAX = 64 * 1024;

const ApiAddress = Type.Object({
  host: Type.String({ minLength: 1, maxLength: 253 }),
  port: Type.Integer({ minimum: 1, maximum: 65_535 }),
});

/** What a client needs to talk to the site of a data directory. */
export interface ApiAccess {
  readonly host: string;
  readonly port: number;
  /** PEM of the only authority whose certificates are believed. */
  readonly authority: string;
  readonly token: string;
}

/**
 * Reads the files that a site leaves for clients of its host. Throws CLI_SITE_MISSING, CLI_SITE_STOPPED,
 * CLI_NO_RIGHTS.
 */
export async function readApiAccess(files: FileSystem, dataDirectory: string): Promise<ApiAccess> {
  const authority = await readText(files, join(dataDirectory, CLIENT_FILES.authority));
  const token = await readText(files, join(dataDirectory, CLIENT_FILES.operatorToken));
  if (authority === undefined || token === undefined) {
    throw cliFailure('CLI_SITE_MISSING', `there is no site in ${dataDirectory}`, {
      context: { dataDirectory },
    });
  }
  const path = join(dataDirectory, CLIENT_FILES.apiAddress);
  const address = await readText(files, path);
  if (address === undefined) throw siteStopped(dataDirectory);
  return { ...decodeAddress(address, path), authority, token: token.trim() };
}

export function siteStopped(where: string) {
  return cliFailure('CLI_SITE_STOPPED', `the site at ${where} is not being served`, { context: { where } });
}

function decodeAddress(text: string, path: string): { host: string; port: number } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw cliFailure('CLI_ANSWER_INVALID', `${path} does not hold an address`, { cause: error });
  }
  if (Value.Check(ApiAddress, value)) return value;
  throw cliFailure('CLI_ANSWER_INVALID', `${path} does not hold an address`);
}

async function readText(files: FileSystem, path: string): Promise<string | undefined> {
  try {
    return (await readSmallFile(files, path, FILE_BYTES_MAX))?.toString('utf8');
  } catch (error) {
    if (isFailure(error, 'FILE_UNREADABLE') && /^E(ACCES|PERM)$/.test(String(error.context.system))) {
      throw cliFailure('CLI_NO_RIGHTS', `you may not read ${path}`, { context: { path }, cause: error });
    }
    throw error;
  }
}
