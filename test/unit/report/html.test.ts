import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import type { SignedReport } from '../../../src/api/index.ts';
import { htmlOf } from '../../../src/report/index.ts';
import { sampleReport } from '../../support/sample-report.ts';

function pageOf(bytes: Buffer): string {
  return htmlOf(JSON.parse(bytes.toString('utf8')) as SignedReport, bytes);
}

/** Every tag of a page, without what is in its attributes. */
function tagsIn(page: string): string[] {
  return [...page.matchAll(/<\/?([a-z][a-z0-9]*)/g)].map(([, name]) => name!);
}

describe('the page of a report', () => {
  it('F9 shows what guests and people have said as text, whatever it is', () => {
    const hostile = `</title></pre><script>alert(1)</script><img src=x onerror=alert(1)>"'><!-- & \u202e \x1b[2J ]]>`;
    const page = pageOf(sampleReport({ said: hostile }));
    const plain = pageOf(sampleReport({ said: 'nothing special' }));
    // Not one tag more, wherever the words went.
    assert.deepEqual(tagsIn(page), tagsIn(plain));
    assert.ok(!tagsIn(page).includes('script'));
    assert.ok(page.includes('&lt;script&gt;alert(1)&lt;/script&gt;') && page.includes('\\u{202e}'));
    assert.ok(!page.includes('\u202e') && !page.includes('\x1b'));
    const attributes = [...page.matchAll(/\s(on[a-z]+)=/g)].filter(({ index }) => isInTag(page, index));
    assert.deepEqual(attributes, []);
  });

  it('S0.17 tells of the program that has stood in the place of a word, and what it printed', () => {
    const output = 'outlet <7> is off';
    const fenced = { what: 'fenced', by: 'operator:a', atMs: 1_950, program: 'power-off', output } as const;
    const page = pageOf(sampleReport({ change: { kind: 'unplanned', confirmations: [fenced] } }));
    assert.match(page, /The program power-off made sure that the other site was down\./);
    assert.match(page, /a program should make sure [^(]*\(power-off printed: outlet &lt;7&gt; is off\)/);
  });

  it('F9 needs nothing but itself, and lets nothing in', () => {
    const page = pageOf(sampleReport());
    const style = /<style>([\s\S]*?)<\/style>/.exec(page)![1]!;
    const digest = createHash('sha256').update(style).digest('base64');
    assert.ok(page.includes(`content="default-src 'none'; img-src data:; style-src 'sha256-${digest}'"`));
    for (const [, target] of page.matchAll(/\s(?:src|href)="([^"]*)"/g)) assert.match(target!, /^data:/);
    assert.ok(!/url\(|@import|\sstyle="/.test(page));
  });

  it('F9 can be read by who sees it, who hears it, and on paper', () => {
    const page = pageOf(sampleReport());
    assert.match(page, /^<!doctype html>\n<html lang="en">/);
    for (const one of ['header', 'main', 'footer', 'h1']) {
      assert.equal(page.split(`<${one}>`).length, 2, one);
    }
    // Each section is named by a heading that is there once.
    const sections = [...page.matchAll(/<(?:section|article) aria-labelledby="([a-z0-9-]+)"/g)];
    assert.ok(sections.length >= 8, String(sections.length));
    for (const [, id] of sections) assert.equal(page.split(`id="${id}"`).length, 2, id);
    for (const [head] of page.matchAll(/<th\b[^>]*>/g)) assert.match(head, /scope="(col|row)"/);
    for (const [image] of page.matchAll(/<img\b[^>]*>/g)) assert.match(image, /alt="[^"]+"/);
    assert.match(page, /<svg [^>]*role="img" aria-labelledby="bars-title"><title id="bars-title">/);
    assert.match(page, /prefers-color-scheme: dark/);
    assert.match(page, /@media print/);
  });

  it('F9 has enough contrast in the light, in the dark and on paper', () => {
    const style = /<style>([\s\S]*?)<\/style>/.exec(pageOf(sampleReport()))![1]!;
    assert.equal(style.match(/:root \{[^}]*\}/g)!.length, 3);
    for (const text of style.match(/:root \{[^}]*\}/g)!) {
      const colours = coloursOf(text);
      for (const name of ['ink', 'faint', 'good', 'bad', 'open', 'link']) {
        for (const ground of ['paper', 'band']) {
          const ratio = contrast(colours.get(name)!, colours.get(ground)!);
          assert.ok(ratio >= 4.5, `${name} upon ${ground}: ${ratio.toFixed(2)}`);
        }
      }
    }
  });
});

function isInTag(page: string, index: number): boolean {
  return page.lastIndexOf('<', index) > page.lastIndexOf('>', index);
}

function coloursOf(text: string): Map<string, string> {
  return new Map(
    [...text.matchAll(/--([a-z]+): (#[0-9a-f]{6})/g)].map(([, name, colour]) => [name!, colour!]),
  );
}

/** WCAG 2.1, relative luminance and contrast ratio. */
function contrast(a: string, b: string): number {
  const luminance = (colour: string) => {
    const [red, green, blue] = [1, 3, 5].map((at) => {
      const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high! + 0.05) / (low! + 0.05);
}
