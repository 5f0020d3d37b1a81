import { nodeFiles } from '../../../src/lib/node-files.ts';
import { fileSystemContract } from '../../contract/file-system.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

fileSystemContract('nodeFiles', async (t) => ({ files: nodeFiles, root: await temporaryDirectory(t) }));

fileSystemContract('SimFiles without faults', async () => {
  const files = new SimFiles(new SimDisk());
  await files.makeDirectory('/root');
  return { files, root: '/root' };
});
