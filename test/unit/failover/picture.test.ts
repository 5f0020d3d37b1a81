import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { cropPicture, decodePpm, distinctColours, encodePng } from '../../../src/failover/index.ts';

const RGB = [255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9, 9, 9, 9, 0, 0, 255];
const PPM = Buffer.concat([Buffer.from('P6\n3 2\n255\n'), Buffer.from(RGB)]);

test('a PPM is read, with comments too', () => {
  const picture = decodePpm(PPM)!;
  assert.deepEqual([picture.width, picture.height, [...picture.rgb]], [3, 2, RGB]);
  const commented = Buffer.concat([Buffer.from('P6 # by hand\n3 2 # size\n255\n'), Buffer.from(RGB)]);
  assert.deepEqual([...decodePpm(commented)!.rgb], RGB);
});

test('what is not a whole PPM is undefined', () => {
  assert.equal(decodePpm(PPM.subarray(0, -1)), undefined);
  for (const head of ['P5 3 2 255\n', 'P6 0 2 255\n', 'P6 99999 99999 255\n', 'P6 3 2 65535\n', 'P6', '']) {
    assert.equal(decodePpm(Buffer.concat([Buffer.from(head), Buffer.from(RGB)])), undefined, head);
  }
});

test('any bytes are survived', () => {
  fc.assert(fc.property(fc.uint8Array(), (bytes) => decodePpm(bytes) === undefined));
});

test('colours are counted up to the limit', () => {
  const picture = decodePpm(PPM)!;
  assert.equal(distinctColours(picture), 4);
  assert.equal(distinctColours(picture, 2), 2);
  assert.equal(distinctColours({ width: 2, height: 1, rgb: new Uint8Array(6) }), 1);
});

test('cropping keeps the pixels and stays inside', () => {
  const picture = decodePpm(PPM)!;
  assert.deepEqual(
    [...cropPicture(picture, { x: 1, y: 0, width: 9, height: 1 })!.rgb],
    [0, 255, 0, 0, 0, 255],
  );
  assert.equal(cropPicture(picture, { x: 3, y: 0, width: 1, height: 1 }), undefined);
});

test('a PNG holds the same pixels, with sound checksums', () => {
  const png = encodePng(decodePpm(PPM)!);
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const body = png.subarray(at + 4, at + 8 + length);
    assert.equal(png.readUInt32BE(at + 8 + length), crc32(body));
    chunks.set(body.subarray(0, 4).toString('latin1'), body.subarray(4));
    at += length + 12;
  }
  assert.deepEqual([...chunks.keys()], ['IHDR', 'IDAT', 'IEND']);
  const lines = [0, ...RGB.slice(0, 9), 0, ...RGB.slice(9)];
  assert.deepEqual([...inflateSync(chunks.get('IDAT')!)], lines);
});
