// Keys and teams with spending and limits; adds, rotates and revokes keys. A secret is shown once and never stored.

import { shares } from "./charts.js";
import { ago, count, element, percent, usd } from "./words.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["usd_a_day", "usd_a_month", "requests_a_minute", "tokens_a_minute", "soft", "floor"];
const GRACES = [["0", "now (leaked or unused)"], ["1h", "in 1 hour"], ["24h", "in 24 hours"], ["7d", "in 7 days"]];
const CALLS = "chat, responses, completions, embeddings, models";  // the paths of a new key
const rows = new Map();
let ask, refresh, confirmed;

export function startKeys(asking, refreshing) {
  ask = asking;
  refresh = refreshing;
  $("new-key").addEventListener("click", () => { $("add-key-problem").textContent = ""; $("add-key").showModal(); $("key-name").focus(); });
  for (const button of document.querySelectorAll("dialog .cancel")) button.addEventListener("click", () => button.closest("dialog").close());
  $("add-key-form").addEventListener("submit", (event) => { event.preventDefault(); submit($("add-key"), $("add-key-problem"), add); });
  $("confirm-form").addEventListener("submit", (event) => { event.preventDefault(); submit($("confirm"), $("confirm-problem"), () => confirmed()); });
  $("secret-copy").addEventListener("click", async () => {
    $("secret-value").select();
    try { await navigator.clipboard.writeText($("secret-value").value); $("secret-copy").textContent = "Copied"; } catch { $("secret-copy").textContent = "Press Ctrl+C"; }
  });
  $("secret-done").addEventListener("click", () => { $("secret-value").value = ""; $("secret").hidden = true; $("new-key").focus(); });
}

// Submit a form, one submission at a time. Close its dialog on success; otherwise show the error in it.
async function submit(dialog, problem, action) {
  const button = dialog.querySelector("button[type=submit]");
  if (button.disabled) return;
  button.disabled = true;
  problem.textContent = "";
  try {
    await action();
    dialog.close();
    await refresh();
  } catch (error) {
    problem.textContent = error.message || "The router does not accept this key.";
  } finally {
    button.disabled = false;
  }
}

async function add() {
  const form = $("add-key-form"), fields = new FormData(form), body = { name: fields.get("name").trim() };
  const models = fields.get("models").split(",").map((name) => name.trim()).filter(Boolean);
  if (models.length) body.models = models;
  if (fields.get("team").trim()) body.team = fields.get("team").trim();
  if (fields.get("expires").trim()) body.expires = fields.get("expires").trim();
  if (fields.get("admin")) body.admin = true;
  else body.paths = fields.getAll("paths");
  for (const name of NUMBERS) if (fields.get(name).trim()) body[name] = fields.get(name).trim();
  shown(await ask("/router/keys", body));
  form.reset();
}

function shown({ name, key }) {
  $("secret-name").textContent = name;
  $("secret-value").value = key;
  $("secret-copy").textContent = "Copy";
  $("secret").hidden = false;
  $("secret").scrollIntoView({ block: "nearest" });
}

function confirm(title, text, action, options, run) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-problem").textContent = "";
  $("confirm-action").textContent = action;
  $("confirm-grace-row").hidden = !options;
  if (options) $("confirm-grace").replaceChildren(...GRACES.map(([value, words]) => element("option", { value }, words)));
  confirmed = run;
  $("confirm").showModal();
}

function rotate(name) {
  confirm(`Rotate ${name}?`, "The key gets a new secret. Its rights, limits and expiry stay the same.", "Rotate", true,
    async () => shown(await ask(`/router/keys/${name}/rotate`, { grace: $("confirm-grace").value })));
}

function revoke(name) {
  confirm(`Revoke ${name}?`, "New requests with this key are rejected; requests in progress complete. This cannot be undone, and the name cannot be reused.",
    "Revoke", false, () => ask(`/router/keys/${name}`, undefined, "DELETE"));
}

export function drawKeys({ keys, may_change: mayChange, why }) {
  const body = $("keys-table").tBodies[0];
  const order = [...keys].sort((a, b) => (a.state !== "active") - (b.state !== "active") || a.name.localeCompare(b.name));
  const names = new Set(order.map((key) => key.name));
  for (const [name, { row }] of rows) if (!names.has(name)) { row.remove(); rows.delete(name); }
  order.forEach((key, at) => {
    const told = JSON.stringify([key, mayChange, key.last_used && ago(Math.max(Date.now() / 1000 - Date.parse(key.last_used) / 1000, 0))]);
    const known = rows.get(key.name);
    let row = known?.row;
    if (known?.told !== told) {
      const focused = row?.contains(document.activeElement) ? document.activeElement.className : null;
      const made = keyRow(key, mayChange);
      row?.replaceWith(made);
      row = made;
      rows.set(key.name, { row, told });
      if (focused) row.querySelector(`button.${focused.split(" ")[0]}`)?.focus();
    }
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
  });
  $("keys-table").hidden = keys.length === 0;
  $("new-key").hidden = !mayChange;
  $("keys-note").textContent = why || (keys.length ? "" : "No named keys yet.");
}

export function drawTeams({ teams }) {
  const active = teams.filter((team) => team.state === "active");
  $("teams-table").hidden = active.length === 0;
  $("teams-table").tBodies[0].replaceChildren(...active.map(teamRow));
  $("key-teams").replaceChildren(...active.map(({ name }) => element("option", { value: name })));
}

function teamRow({ name, keys, limits, spent_usd_today: today, spent_usd_this_month: month }) {
  return element("tr", { "data-name": name }, element("th", { scope: "row" }, name),
    spent("today", today, limits.usd_a_day), spent("this month", month, limits.usd_a_month),
    element("td", { class: "spare wraps" }, aMinute(limits)), element("td", { class: "wraps" }, keys.join(", ") || "no keys"));
}

function aMinute(limits) {
  const rates = [["requests_a_minute", "requests"], ["tokens_a_minute", "tokens"]].filter(([name]) => limits[name]).map(([name, words]) => `${count(limits[name])} ${words}`);
  return rates.length ? `${rates.join(", ")} per minute` : "no limit";
}

function keyRow(key, mayChange) {
  const active = key.state === "active", { limits } = key;
  const marks = [key.team ? `team ${key.team}` : "", key.admin ? "admin" : "", active ? "" : key.state].filter(Boolean).join(" · ");
  const models = key.models.join(", "), rights = key.paths.join(", ");
  const paths = { "": "no paths", [CALLS]: "all paths except account", [`${CALLS}, account`]: "all paths" }[rights] ?? rights;
  const buttons = active && mayChange ? [
    element("button", { type: "button", class: "rotate plain", "aria-label": `Rotate ${key.name}` }, "Rotate"),
    element("button", { type: "button", class: "revoke plain", "aria-label": `Revoke ${key.name}` }, "Revoke")] : [];
  buttons[0]?.addEventListener("click", () => rotate(key.name));
  buttons[1]?.addEventListener("click", () => revoke(key.name));
  return element("tr", { class: active ? "" : "ended", "data-name": key.name },
    element("th", { scope: "row" }, key.name, marks ? element("small", {}, marks) : null),
    spent("today", key.spent_usd_today, limits.usd_a_day), spent("this month", key.spent_usd_this_month, limits.usd_a_month),
    element("td", { class: "spare wraps" }, aMinute(limits)),
    element("td", { class: "spare wraps" }, models === "all" ? "all models" : models, element("small", {}, paths)),
    element("td", { class: "spare" }, key.last_used ? `${ago(Math.max((Date.now() - Date.parse(key.last_used)) / 1000, 0))} ago` : "not in the last month"),
    element("td", { class: "spare" }, key.expires ? key.expires.slice(0, 10) : "never"),
    element("td", { class: "actions" }, ...buttons));
}

function spent(when, dollars, budget) {
  if (!budget) return element("td", { class: "number" }, usd(dollars));
  const share = dollars === null ? 0 : Math.min(dollars / budget, 1);
  const kind = share >= 1 ? "bad" : share >= 0.8 ? "middle" : "cheap";
  const words = `${usd(dollars)} of ${usd(budget)}`;
  return element("td", { class: "number" }, words, shares([[kind, share], ["track", 1 - share]], `${words} spent ${when}, ${percent(share)}`));
}
