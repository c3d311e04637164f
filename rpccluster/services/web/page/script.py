"""The script of the page: it takes what the server has made, and changes in the page only what differs. Data alone."""

from __future__ import annotations

__all__ = ["SCRIPT"]

SCRIPT = """
"use strict";
const OLD_AFTER = 6000;
let source = null, heardAt = Date.now(), asked = null;

// Makes `shown` like `wanted`, and keeps every node of the same key, so that focus and selection stay.
function follow(shown, wanted) {
  for (const {name, value} of wanted.attributes)
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  for (const {name} of [...shown.attributes])
    if (!wanted.hasAttribute(name)) shown.removeAttribute(name);
  const present = new Map([...shown.children].filter(each => each.dataset.key).map(each => [each.dataset.key, each]));
  let place = shown.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = child.dataset && child.dataset.key;
    const match = key ? present.get(key) : place;
    if (match && match.nodeType === child.nodeType && match.nodeName === child.nodeName
        && (match.dataset ? match.dataset.key : undefined) === key) {
      if (match === place) place = place.nextSibling; else shown.insertBefore(match, place);
      if (child.nodeType === Node.ELEMENT_NODE) follow(match, child);
      else if (match.nodeValue !== child.nodeValue) match.nodeValue = child.nodeValue;
    } else shown.insertBefore(child, place);
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

function show(id, html) {
  const made = document.createElement("template"), shown = document.getElementById(id);
  made.innerHTML = html;
  const wanted = shown.cloneNode(false);
  wanted.append(made.content);
  follow(shown, wanted);
}

function note(text, isOld) {
  const summary = document.getElementById("summary");
  if (summary.textContent !== text) summary.textContent = text;
  document.body.classList.toggle("is-old", isOld);
}

function listen() {
  source = new EventSource("events");
  const hear = (name, heed) =>
    source.addEventListener(name, event => { heardAt = Date.now(); heed(JSON.parse(event.data)); });
  hear("live", html => show("live", html));
  hear("plots", html => show("plots", html));
  hear("summary", ([text, isOld]) => note(text, isOld));
  hear("beat", () => {});
}

function sleep() { if (source) source.close(); source = null; }

document.addEventListener("visibilitychange", () => {
  sleep();
  if (!document.hidden) { heardAt = Date.now(); listen(); }
});
addEventListener("pagehide", sleep);
setInterval(() => {
  if (document.hidden || Date.now() - heardAt < OLD_AFTER) return;
  note("The page has lost the cluster, and tries again.", true);
  if (!source || source.readyState === EventSource.CLOSED) { sleep(); listen(); }
}, 1000);
if (!document.hidden) listen();

const form = document.getElementById("act");
if (form) form.addEventListener("submit", async event => {
  event.preventDefault();
  const button = event.submitter, told = document.getElementById("told"), fields = new FormData(form);
  const bodies = {
    "reload": {},
    "scale": {group: fields.get("group"), processes: fields.get("processes")},
    "plugin.restart": {name: fields.get("plugin")},
  };
  button.disabled = true;
  told.textContent = "Asked; waiting.";
  try {
    const answer = await fetch("actions/" + button.value, {method: "POST", body: JSON.stringify(bodies[button.value]),
      headers: {"Authorization": "Bearer " + fields.get("token"), "Content-Type": "application/json"}});
    const text = (await answer.text()).trim();
    told.textContent = answer.ok ? "Done." : text;
  } catch (error) { told.textContent = "No answer: " + error.message; }
  button.disabled = false;
});
"""
