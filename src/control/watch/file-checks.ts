import { basename } from 'node:path';
import { CLIENT_FILES } from '../../api/index.ts';
import { modeOf, modesIn } from '../../lib/host-files.ts';
import { type Finding, failed, ok, warning } from '../base/finding.ts';

/** The directory and those in it: what lies below them is out of reach of others then. */
export async function rightsFinding(dataDirectory: string): Promise<Finding> {
  const directories = (await modesIn(dataDirectory)).filter(({ isDirectory }) => isDirectory);
  const mode = await modeOf(dataDirectory);
  const open = [{ path: dataDirectory, mode }, ...directories].filter(isForOthers);
  return open.length === 0
    ? ok(`${dataDirectory} has mode ${mode.toString(8)}`)
    : warning(said(open), `Others can look into replicas: chmod 700 ${paths(open)}.`);
}

/** The public certificate is no secret; everything else there is. */
export async function keysFinding(directory: string): Promise<Finding> {
  const files = await modesIn(directory);
  const secrets = files.filter(({ path }) => !path.endsWith(basename(CLIENT_FILES.authority)));
  const open = secrets.filter(isForOthers);
  return open.length === 0
    ? ok(`only this user can read ${directory}`)
    : failed(
        said(open),
        `Whoever has read them can be this site: chmod 600 ${paths(open)}. If others had access to this host, set the site up anew and pair it again.`,
      );
}

interface WithMode {
  readonly path: string;
  readonly mode: number;
}

function isForOthers({ mode }: WithMode): boolean {
  return (mode & 0o077) !== 0;
}

function said(files: readonly WithMode[]): string {
  return files.map(({ path, mode }) => `${path} has mode ${mode.toString(8)}`).join(', ');
}

function paths(files: readonly WithMode[]): string {
  return files.map(({ path }) => path).join(' ');
}
