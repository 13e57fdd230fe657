"""Look and keys of the raters' page."""

STYLE = """
:root { --ink: #1c2530; --soft: #566270; --paper: #fff; --panel: #f4f6f8; --line: #d5dce3;
  --link: #1f66ad; --bad: #b02a37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8ee; --soft: #a3afbc; --paper: #12171d; --panel: #1b222a;
  --line: #34404b; --link: #7cb4ec; --bad: #f0808a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem 1.25rem 7rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: baseline; justify-content: space-between; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .5rem; } h3 { font-size: .95rem; }
h4 { font: 600 .9rem ui-monospace, monospace; margin: 0; }
.progress { color: var(--soft); margin: 0; font-variant-numeric: tabular-nums; } progress { width: 10rem; }
.prompt { background: var(--panel); border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.side { border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem; min-width: 0; }
ol { padding-left: 1.3rem; } li { margin-bottom: .8rem; }
.call { border-left: 3px solid var(--line); padding-left: .8rem; margin: .5rem 0; }
dl { margin: .2rem 0; } dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; }
pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.5 ui-monospace, monospace; }
.none { color: var(--soft); font-style: italic; margin: .2rem 0; } .failed { color: var(--bad); }
summary { cursor: pointer; color: var(--link); font-size: .88rem; }
footer { position: fixed; inset: auto 0 0; display: flex; flex-wrap: wrap; gap: .6rem; justify-content: center;
  background: var(--panel); border-top: 1px solid var(--line); padding: .7rem 1rem; }
form { display: flex; flex-wrap: wrap; gap: .6rem; }
button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--soft); border-radius: 8px;
  padding: .5rem .9rem; cursor: pointer; }
button:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
button:disabled { opacity: .5; cursor: default; }
kbd { font: 600 .85rem ui-monospace, monospace; border: 1px solid var(--line); border-radius: 4px; padding: 0 .35rem; }
@media (max-width: 50rem) { .sides { grid-template-columns: 1fr; } }
"""

KEYS_SCRIPT = """
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  for (const button of document.querySelectorAll('button[data-key]'))
    if (button.dataset.key === event.key.toLowerCase()) { event.preventDefault(); button.click(); return; }
});
"""
