import { diskImagesContract } from '../../contract/disk-images.ts';
import { SimDisk } from '../../simulation/sim-disk.ts';
import { SimFiles } from '../../simulation/sim-files.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';

diskImagesContract('FakeImages', async () => {
  const files = new SimFiles(new SimDisk());
  await files.makeDirectory('/root');
  return { files, root: '/root', images: new FakeImages({ files, locks: new ImageLocks() }) };
});
