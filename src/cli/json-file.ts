import { messageOf } from '../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../lib/files.ts';
import { cliFailure } from './errors.ts';

const BYTES_MAX = 1024 * 1024;

/** The value in a file that a person wrote. Throws CLI_FILE_INVALID. */
export async function readJsonFile(files: FileSystem, path: string): Promise<unknown> {
  const bytes = await readSmallFile(files, path, BYTES_MAX);
  if (!bytes) throw cliFailure('CLI_FILE_INVALID', `there is no file ${path}`, { context: { path } });
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw cliFailure('CLI_FILE_INVALID', `${path} is not JSON: ${messageOf(error)}`, { context: { path } });
  }
}
