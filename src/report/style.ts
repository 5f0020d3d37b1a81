/** The look of a report: on a screen in the light and in the dark, and on paper. Contrast is at least 4.5 to 1. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #57606a; --paper: #ffffff; --line: #d0d7de; --band: #f6f8fa; --good: #116329; --bad: #a40e26; --open: #7d4e00; --bar: #0b5394; --link: #0b5394; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9da7b3; --paper: #0d1117; --line: #3d444d; --band: #161b22; --good: #56d364; --bad: #ff8983; --open: #e3b341; --bar: #6cb6ff; --link: #6cb6ff; } }
@media print { :root { color-scheme: light; --ink: #000000; --faint: #444444; --paper: #ffffff; --line: #bbbbbb; --band: #f4f4f4; --good: #116329; --bad: #a40e26; --open: #7d4e00; --bar: #0b5394; --link: #000000; } }
@media print { body { font-size: 11px; padding: 0; max-width: none; } .figures { grid-template-columns: repeat(4, 1fr) !important; } .figures dd { font-size: 1.2rem !important; } h1 { font-size: 1.7rem !important; } }
@page { size: A4; margin: 16mm 14mm; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 56rem; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 1rem; }
.kicker { margin: 0; color: var(--faint); letter-spacing: .06em; text-transform: uppercase; font-size: .8rem; }
h1 { margin: .2rem 0 .6rem; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 2rem 0 .6rem; font-size: 1.25rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; break-after: avoid; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1.05rem; break-after: avoid; }
.verdict { display: inline-block; margin: 0; padding: .25rem .75rem; border: 2px solid currentColor; border-radius: 4px; font-weight: 700; font-size: 1.05rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
.summary { font-size: 1.1rem; margin: 1rem 0 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.figures div { border: 1px solid var(--line); background: var(--band); border-radius: 4px; padding: .6rem .8rem; break-inside: avoid; }
.figures dt { color: var(--faint); font-size: .85rem; } .figures dd { margin: 0; font-size: 1.35rem; font-weight: 650; } .figures dd.note { font-size: .85rem; font-weight: 400; color: var(--faint); }
dl.facts { display: grid; grid-template-columns: minmax(9rem, 13rem) 1fr; gap: .15rem 1rem; margin: 0; }
dl.facts dt { color: var(--faint); } dl.facts dd { margin: 0; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .92rem; }
caption { text-align: left; color: var(--faint); font-size: .85rem; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); overflow-wrap: normal; } .time { white-space: nowrap; } tbody th { font-weight: 600; } tr { break-inside: avoid; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: .75rem 0; break-inside: avoid; } figcaption { color: var(--faint); font-size: .85rem; }
figure img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); image-rendering: auto; }
svg { width: 100%; height: auto; font: 11px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; } svg text { fill: var(--ink); } svg rect { fill: var(--bar); print-color-adjust: exact; } svg line { stroke: var(--line); }
code, pre { font-family: ui-monospace, "Liberation Mono", "DejaVu Sans Mono", monospace; font-size: .86em; } pre { background: var(--band); border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; white-space: pre-wrap; }
ul { padding-left: 1.2rem; } a { color: var(--link); } footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .75rem; color: var(--faint); font-size: .85rem; }
`;
