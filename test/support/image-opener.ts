/** A process that opens an image and keeps it open until it is killed: `image-opener.ts PATH`. */
import { QemuImages } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';

await new QemuImages({ clock: systemClock }).open([{ path: process.argv[2]!, format: 'qcow2' }]);
