import { QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { diskImagesContract } from '../../contract/disk-images.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

diskImagesContract('QemuImages', async (t) => ({
  files: nodeFiles,
  root: await temporaryDirectory(t),
  images: new QemuImages({ clock: systemClock }),
}));
