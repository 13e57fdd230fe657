"""The look of a report: one column that reads like a paper, light or dark as the reader's system is."""

STYLE = """
:root { --ink: #1c2530; --soft: #5a6675; --paper: #ffffff; --panel: #f5f7f9; --line: #dde3e9; --grid: #dfe4ea;
  --link: #1f66ad; --passed: #1b7f56; --failed: #b8323e; --open: #96650c; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde4ec; --soft: #97a3b1; --paper: #12171d; --panel: #1a2129;
  --line: #2c3641; --grid: #2f3944; --link: #7cb4ec; --passed: #4cc492; --failed: #f0808a; --open: #e0ae52; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
header { border-bottom: 1px solid var(--line); margin-bottom: 2rem; padding-bottom: 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.25; letter-spacing: -.015em; margin: 0; text-wrap: balance; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 3rem 0 .75rem; scroll-margin-top: 1rem; }
h3 { font-size: 1.02rem; margin: 2rem 0 .5rem; }
p, ul { margin: .75rem 0; max-width: 46rem; }
ul { padding-left: 1.25rem; }
.subtitle { color: var(--soft); margin: .4rem 0 0; }
nav { display: flex; flex-wrap: wrap; gap: .35rem 1.25rem; margin-top: 1rem; font-size: .9rem; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .88em; background: var(--panel); border-radius: 4px; padding: .1em .35em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.1rem;
  font-size: .82rem; line-height: 1.55; white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; min-width: 20rem; }
caption { text-align: left; color: var(--soft); font-size: .88rem; padding-bottom: .4rem; }
th, td { text-align: left; padding: .42rem 1.4rem .42rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; white-space: nowrap; }
th:last-child, td:last-child { padding-right: .25rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0 2rem; }
figure svg { display: block; width: 100%; height: auto; max-height: 34rem; min-width: 26rem; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .5rem; max-width: 46rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.tiles div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; }
.tiles dt { color: var(--soft); font-size: .82rem; }
.tiles dd { margin: .1rem 0 0; font-size: 1.3rem; line-height: 1.35; font-weight: 600; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.verdict { --tone: var(--open); display: flex; gap: 1.1rem; align-items: flex-start; margin: 1.5rem 0;
  border: 1px solid var(--tone); border-left-width: 6px; border-radius: 8px; padding: 1rem 1.25rem;
  background: color-mix(in srgb, var(--tone) 8%, var(--paper)); }
.verdict.passed { --tone: var(--passed); } .verdict.failed { --tone: var(--failed); }
.verdict p, .verdict ul { margin: 0; }
.verdict .sign { color: var(--tone); font-size: 2rem; line-height: 1.1; font-weight: 700; }
.verdict .label { color: var(--tone); font-size: 1.35rem; line-height: 1.35; font-weight: 650; }
.verdict ul { margin-top: .4rem; }
@media print { body { font-size: 11pt; } nav { display: none; } figure, table, .verdict { break-inside: avoid; } }
"""
