import type { TimelineEntry } from '../api/index.ts';
import { formatDuration } from '../lib/duration-text.ts';
import { html, type Markup, NOTHING, utc } from './markup.ts';

const WIDTH = 720;
const LABEL_WIDTH = 150;
const ROW_HEIGHT = 22;
/** A bar that is shorter could not be seen. */
const BAR_WIDTH_MIN = 2;
const LABEL_CHARACTERS_MAX = 24;

/** A bar for each step from its beginning to its end, and the same as a table. */
export function timelineOf(entries: readonly TimelineEntry[]): Markup {
  if (entries.length === 0) return NOTHING;
  const firstMs = Math.min(...entries.map(({ beganAtMs }) => beganAtMs));
  const lastMs = Math.max(...entries.map(({ beganAtMs, durationMs }) => beganAtMs + durationMs));
  const scale = (WIDTH - LABEL_WIDTH - 90) / Math.max(1, lastMs - firstMs);
  const height = entries.length * ROW_HEIGHT + 24;
  const bars = entries.map((entry, index) => {
    const x = LABEL_WIDTH + (entry.beganAtMs - firstMs) * scale;
    const width = Math.max(BAR_WIDTH_MIN, entry.durationMs * scale);
    const y = index * ROW_HEIGHT + 4;
    const middle = y + 12;
    return html`<text x="${LABEL_WIDTH - 8}" y="${middle}" text-anchor="end">${labelOf(entry)}</text><rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="14" rx="2"/><text x="${(x + width + 6).toFixed(1)}" y="${middle}">${formatDuration(entry.durationMs)}</text>
`;
  });
  const axis = height - 20;
  return html`<section aria-labelledby="timeline"><h2 id="timeline">Time line</h2>
<figure><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="bars-title"><title id="bars-title">Steps from ${utc(firstMs)}, ${formatDuration(lastMs - firstMs)} in all; the table below says the same</title>
${bars}<line x1="${LABEL_WIDTH}" y1="${axis}" x2="${WIDTH - 90}" y2="${axis}"/><text x="${LABEL_WIDTH}" y="${height - 5}">0</text><text x="${WIDTH - 90}" y="${height - 5}" text-anchor="end">${formatDuration(lastMs - firstMs)}</text></svg></figure>
<table><caption>Steps in the order in which they began</caption><thead><tr><th scope="col">Step</th><th scope="col">Began</th><th scope="col" class="number">After</th><th scope="col" class="number">Took</th></tr></thead><tbody>
${entries.map(
  (
    entry,
  ) => html`<tr><th scope="row">${labelOf(entry, Number.POSITIVE_INFINITY)}</th><td class="time">${utc(entry.beganAtMs)}</td><td class="number">${formatDuration(entry.beganAtMs - firstMs)}</td><td class="number">${formatDuration(entry.durationMs)}</td></tr>
`,
)}</tbody></table></section>
`;
}

function labelOf({ name, attempt }: TimelineEntry, most = LABEL_CHARACTERS_MAX): string {
  const whole = attempt === undefined ? name : `${attempt}: ${name}`;
  return whole.length <= most ? whole : `${whole.slice(0, most - 1)}…`;
}
