import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../src/lib/clock.ts';
import { runCommand } from '../../src/lib/processes.ts';

/** Certificates for qemu-nbd and nbdcopy, made by the openssl command. */
export async function makeTlsCredentials(directory: string): Promise<string> {
  const path = join(directory, 'tls');
  await mkdir(path);
  const openssl = (...args: string[]) => runCommand('openssl', args, { cwd: path });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca-key.pem',
    '-out',
    'ca-cert.pem',
    '-days',
    '2',
    '-subj',
    '/CN=bench',
  );
  for (const side of ['server', 'client']) {
    await openssl(
      'req',
      ...key,
      '-keyout',
      `${side}-key.pem`,
      '-out',
      `${side}.csr`,
      '-subj',
      '/CN=localhost',
      '-addext',
      'subjectAltName=DNS:localhost,IP:127.0.0.1',
    );
    await openssl(
      'x509',
      '-req',
      '-in',
      `${side}.csr`,
      '-CA',
      'ca-cert.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      '-days',
      '2',
      '-copy_extensions',
      'copy',
      '-out',
      `${side}-cert.pem`,
    );
  }
  return path;
}

/** Seconds that `nbdcopy --flush` takes from the image into a fresh qcow2, both behind qemu-nbd. */
export async function copyThroughNbd(
  directory: string,
  image: string,
  tls: string | undefined,
): Promise<number> {
  const target = join(directory, 'copy.qcow2');
  await rm(target, { force: true });
  const info = JSON.parse(
    (await runCommand('qemu-img', ['info', '-f', 'qcow2', '--output=json', image])).stdout,
  );
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', target, String(info['virtual-size'])]);
  const port = 10_900 + (process.pid % 1000);
  const address = (side: 's' | 't', at: number) =>
    tls
      ? {
          args: [
            '--object',
            `tls-creds-x509,id=tls0,endpoint=server,dir=${tls},verify-peer=yes`,
            '--tls-creds=tls0',
            '--bind=127.0.0.1',
            `--port=${at}`,
          ],
          uri: `nbds://localhost:${at}/?tls-certificates=${tls}`,
        }
      : { args: [`--socket=${join(directory, side)}`], uri: `nbd+unix:///?socket=${join(directory, side)}` };
  const source = address('s', port);
  const sink = address('t', port + 1000);
  await runCommand('qemu-nbd', ['--fork', '--read-only', '--shared=4', '-f', 'qcow2', ...source.args, image]);
  await runCommand('qemu-nbd', [
    '--fork',
    '--shared=4',
    '-f',
    'qcow2',
    '--discard=unmap',
    ...sink.args,
    target,
  ]);
  const startMs = systemClock.monotonicMs();
  await runCommand('nbdcopy', ['--flush', source.uri, sink.uri]);
  return (systemClock.monotonicMs() - startMs) / 1000;
}
