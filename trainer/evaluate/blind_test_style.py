"""Look and keys of the raters' page."""

STYLE = """
:root { --ink: #17202b; --soft: #556270; --paper: #f4f6f9; --card: #ffffff; --line: #d8dfe7; --edge: #7b8794;
  --a: #1d5fa8; --b: #a04a08; --bad: #a82431; --code: #f3f6f9; --add: #e2f4e6; --add-ink: #145c2c; --cut: #fdeaea;
  --cut-ink: #8f1d27; --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9f0; --soft: #a2afbd; --paper: #0f141a; --card: #171e26;
  --line: #2d3843; --edge: #7d8b99; --a: #82b8f2; --b: #f2ad6b; --bad: #f48a93; --code: #10161d; --add: #12301d;
  --add-ink: #8fdca6; --cut: #3a171c; --cut-ink: #f7a8af; --on: #0f141a; } }
* { box-sizing: border-box; }
html { scroll-padding: 5rem 0 12rem; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, .answer { padding-inline: max(1rem, calc((100vw - 92rem) / 2)); }
header { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; padding-block: .7rem;
  align-items: center; justify-content: space-between; background: var(--card); border-bottom: 1px solid var(--line); }
main { padding-block: 1rem 1.5rem; }
h1 { font-size: 1.15rem; margin: 0; letter-spacing: -.01em; } h2 { font-size: 1rem; margin: 0; }
.final h3 { font-size: .85rem; margin: 0 0 .3rem; color: var(--soft); }
.call h3 { font-size: .9rem; font-weight: 400; margin: 0; display: flex; flex-wrap: wrap; gap: .3rem .6rem; }
a { color: var(--a); }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; z-index: 3; background: var(--card);
  padding: .5rem 1rem; }
.progress { display: flex; align-items: center; gap: .8rem; margin: 0; color: var(--soft); font-size: .92rem;
  font-variant-numeric: tabular-nums; }
.count { white-space: nowrap; }
progress { appearance: none; width: 9rem; height: .5rem; border: 0; border-radius: 1rem; overflow: hidden;
  background: var(--line); }
progress::-webkit-progress-bar { background: var(--line); }
progress::-webkit-progress-value { background: var(--a); } progress::-moz-progress-bar { background: var(--a); }
.task, .side, #differences { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.task { padding: .9rem 1.1rem; margin-bottom: 1rem; } .task h2 { font-size: .85rem; color: var(--soft); }
.task pre { background: none; border: 0; padding: 0; margin: .2rem 0 0; font: inherit; font-size: 1.08rem; }
.help { margin: 0 0 .8rem; } .help p { max-width: 64rem; margin: .4rem 0; font-size: .95rem; }
.keys { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: .2rem 1.5rem;
  font-size: .92rem; }
.keys div { display: flex; gap: .6rem; } .keys dt { flex: none; min-width: 2.2rem; } .keys dd { margin: 0; }
#differences { padding: .6rem 1.1rem; margin-bottom: 1rem; }
.sides { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; align-items: start; }
.side { padding: 1rem 1.1rem; border-top: 4px solid var(--tone); } .side.a { --tone: var(--a); }
.side.b { --tone: var(--b); }
.side > h2 { display: flex; align-items: center; gap: .6rem; font-weight: 400; font-size: .9rem; color: var(--soft); }
.badge { background: var(--tone); color: var(--on); border-radius: 8px; min-width: 1.9rem; text-align: center;
  font-size: 1.05rem; font-weight: 700; padding: .1rem .4rem; }
ol { list-style: none; padding: 0; margin: .9rem 0 0; } li { margin: 0 0 1rem; }
.said { margin: 0 0 .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.call { border-left: 3px solid var(--line); padding-left: .8rem; margin: .4rem 0; }
.tool { font-weight: 650; } .call h3 code { align-self: center; }
dl { margin: .25rem 0; } .call dl div { display: flex; flex-wrap: wrap; gap: 0 .6rem; align-items: baseline; }
.call dt { color: var(--soft); font-size: .85rem; } .call dd { margin: 0; min-width: 0; max-width: 100%; }
.call dd pre { display: inline-block; margin: .1rem 0; padding: .05rem .4rem; max-width: 100%; }
code, pre, kbd { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .84rem; overflow-wrap: anywhere; }
pre { margin: .35rem 0; padding: .5rem .7rem; background: var(--code); border: 1px solid var(--line);
  border-radius: 8px; font-size: .84rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
.diff { padding-inline: 0; } .diff > * { display: block; text-decoration: none; padding: 0 .7rem; }
.diff ins { background: var(--add); color: var(--add-ink); }
.diff del { background: var(--cut); color: var(--cut-ink); }
.diff .gap { color: var(--soft); }
#differences .diff del { background: color-mix(in srgb, var(--a) 12%, var(--card)); color: var(--ink); }
#differences .diff ins { background: color-mix(in srgb, var(--b) 14%, var(--card)); color: var(--ink); }
.final { border-top: 1px solid var(--line); padding-top: .8rem; }
.final pre { background: none; border: 0; padding: 0; margin: 0; font: inherit; }
.none { color: var(--soft); font-style: italic; margin: .3rem 0; font-size: .9rem; }
.failed { color: var(--bad); font-size: .82rem; font-weight: 600; align-self: center; }
summary { cursor: pointer; color: var(--a); font-size: .9rem; } summary code { color: var(--soft); }
.answer { background: var(--card); border-top: 1px solid var(--line); padding-block: .8rem; display: flex;
  flex-wrap: wrap; gap: .7rem 2rem; align-items: end; }
fieldset { border: 0; padding: 0; margin: 0; min-width: 0; } legend { padding: 0; font-weight: 600; font-size: .92rem; }
.options { display: flex; flex-wrap: wrap; gap: .45rem; margin-top: .3rem; }
.options label { position: relative; cursor: pointer; }
.options input { position: absolute; inset: 0; opacity: 0; margin: 0; cursor: pointer; }
.options span, .button, .next { display: inline-block; border: 1px solid var(--edge); border-radius: 9px;
  padding: .45rem .85rem; background: var(--card); color: var(--ink); font: inherit; text-decoration: none; }
.options input:checked + span { background: var(--a); border-color: var(--a); color: var(--on); }
.options input:hover + span, .button:hover { border-color: var(--a); }
.options input:focus-visible + span, a:focus-visible, button:focus-visible, summary:focus-visible,
textarea:focus-visible, pre:focus-visible { outline: 3px solid var(--a); outline-offset: 2px; }
.next { background: var(--ink); color: var(--card); border-color: var(--ink); cursor: pointer; font-weight: 600; }
kbd { font-size: .78rem; border: 1px solid currentColor; border-radius: 4px; padding: 0 .3rem; }
.actions { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-left: auto; }
#status { order: -1; margin: 0; color: var(--soft); font-size: .88rem; }
#status.problem { color: var(--bad); font-weight: 600; }
.note { flex: 0 1 16rem; padding-bottom: .45rem; } .note[open] { flex: 1 1 20rem; padding-bottom: 0; }
.note label { font-size: .85rem; color: var(--soft); }
textarea { display: block; width: 100%; font: inherit; font-size: .92rem; color: inherit; background: var(--code);
  border: 1px solid var(--edge); border-radius: 8px; padding: .4rem .6rem; }
.message { max-width: 38rem; margin: 12vh auto 0; text-align: center; } .message h1 { font-size: 1.7rem; }
@media (min-width: 62rem) and (min-height: 38rem) { .answer { position: sticky; bottom: 0; z-index: 2;
  box-shadow: 0 -6px 18px #0000000f; } }
@media (max-width: 62rem) { .sides { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 40rem) { .actions { width: 100%; margin: 0; } #status { width: 100%; } .next { flex: 1; }
  .by-key { display: none; } progress { width: 6rem; }
  .options span { padding-block: .6rem; } header { padding-block: .5rem; } }
@media (hover: none) { .answer kbd, summary kbd, .by-key { display: none; } }
"""

SCRIPT = """
const form = document.getElementById('answer');
if (form) {
  const status = document.getElementById('status');
  const radios = name => [...form.elements[name]];
  const chosen = name => form.elements[name].value !== '';
  let pending = Promise.resolve(), timer;
  const tell = (text, problem) => { status.textContent = text; status.classList.toggle('problem', problem); };
  const count = body => {
    const bar = document.getElementById('progress');
    bar.value = Number(form.dataset.others) + (body.has('choice') && body.has('preference'));
    document.querySelector('.count').textContent = `${bar.value}/${bar.max} answered`;
  };
  const send = async body => {
    try {
      const answer = await fetch(form.action, {method: 'POST', body, signal: AbortSignal.timeout(15000)});
      if (answer.ok) { tell('Saved', false); count(body); }
      else tell(answer.status === 409 ? 'The test is closed: not saved' : 'Not saved: open your link again', true);
    } catch { tell('Not saved: the server does not answer', true); }
  };
  const save = () => {
    clearTimeout(timer);
    const body = new URLSearchParams(new FormData(form));
    body.set('autosave', '1');
    pending = pending.then(() => send(body));
  };
  form.addEventListener('change', save);
  form.elements.note.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(save, 700); });
  form.addEventListener('submit', event => {
    event.preventDefault();
    clearTimeout(timer);
    if (form.dataset.sent) return;
    form.dataset.sent = '1';
    pending.then(() => form.submit());
  });
  addEventListener('pageshow', () => delete form.dataset.sent);
  const differences = document.getElementById('differences');
  const keys = {
    u() {
      const last = ['preference', 'choice'].find(chosen);
      if (last) { for (const radio of radios(last)) radio.checked = false; save(); }
      else document.getElementById('back')?.click();
    },
    d() { if ((differences.open = !differences.open)) differences.scrollIntoView({block: 'nearest'}); },
    enter() { form.requestSubmit(); },
  };
  for (const key of '1203') keys[key] = () => {
    const open = ['choice', 'preference'].find(name => !chosen(name));
    const radio = open && radios(open).find(radio => radio.value === key);
    if (radio) { radio.checked = true; radio.focus({preventScroll: true}); save(); }
  };
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const key = event.key.toLowerCase();
    const inside = event.target.closest('textarea') || (key === 'enter' && event.target.closest('a, summary, button'));
    if (!inside && Object.hasOwn(keys, key)) { event.preventDefault(); keys[key](); }
  });
}
"""
