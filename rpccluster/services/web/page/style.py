"""The style of the page: one column on a phone, and the colours that the reader's system prefers. Data alone."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark;
  --back: #fbfbfa; --card: #ffffff; --text: #1d2125; --soft: #545d66; --line: #d9dde1; --accent: #0b57a8;
  --good: #11693a; --good-back: #e0f3e7; --wait: #7a4b00; --wait-back: #fdf0d5; --bad: #a11616; --bad-back: #fde5e3; }
@media (prefers-color-scheme: dark) { :root {
  --back: #14171a; --card: #1c2024; --text: #e8eaed; --soft: #aab3bc; --line: #363c43; --accent: #82b8f5;
  --good: #8ad8a8; --good-back: #143322; --wait: #f2c56b; --wait-back: #3a2c0c; --bad: #ffa19a; --bad-back: #431a18; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem; margin-bottom: 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
#summary { margin: 0; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
  margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem 1rem; margin: 0; }
dl .long { grid-column: span 2; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
[data-key="others"] tbody th { min-width: 7.2rem; }
th.number, td.number { text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
.state { display: inline-block; padding: 0 .5rem; border-radius: 1rem; color: var(--wait);
  background: var(--wait-back); }
.state.ready { color: var(--good); background: var(--good-back); }
.state.stopped, .state.finished { color: var(--text); background: var(--line); }
.reason { display: block; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { display: flex; gap: .5rem; align-items: baseline; }
.title { font-weight: 600; } .now { font-variant-numeric: tabular-nums; }
.most { margin-left: auto; color: var(--soft); font-size: .85rem; }
svg { display: block; width: 100%; height: 4.5rem; }
svg polyline { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke; }
svg line { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
form { display: grid; gap: .8rem; }
form div { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; }
label { display: grid; gap: .2rem; color: var(--soft); font-size: .85rem; }
input, button { font: inherit; color: inherit; padding: .4rem .7rem; border: 1px solid var(--soft);
  border-radius: .4rem; background: var(--back); min-height: 2.5rem; max-width: 100%; }
button { cursor: pointer; } button:disabled { cursor: default; opacity: .6; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
output { display: block; margin-top: .6rem; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; } a { color: var(--accent); }
.is-old main { opacity: .75; }
.is-old #summary { color: var(--bad); font-weight: 600; }
@media (max-width: 40rem) { body { padding: .75rem; } .wide { display: none; } section { padding: .8rem; }
  th, td { padding: .35rem .35rem; } }
"""
