// Draws the sections of the page from API responses. Rows are reused while their request or type is shown, so that focus,
// selection and open details survive an update.

import { bars, curve, intervals, lines, shares, shareWithTick } from "./charts.js";
import { ago, clock, count, dollars, element, exactly, findingOf, kindOf, milliseconds, named, percent, plural, readAs, reasonOf, usd, verifiedAs } from "./words.js";

const $ = (id) => document.getElementById(id);
const LENGTHS = { hour: "hour", day: "24 hours", week: "7 days", month: "30 days" };

// cheap, middle or strong by position in the policy; other for models outside the policy
export function kindOfModel(policy, name) {
  const at = policy.models.findIndex((model) => model.name === name);
  if (at < 0) return "other";
  return at === policy.models.length - 1 ? "strong" : at === 0 ? "cheap" : "middle";
}

const byPlace = (policy) => (a, b) => place(policy, a[0]) - place(policy, b[0]);
const place = (policy, name) => (policy.models.findIndex((model) => model.name === name) + 99) % 99;
const strongest = (policy) => policy.models.at(-1).name;
const failures = (sums) => (sums.outcomes.failed || 0) + (sums.outcomes.cut || 0);
const between = ({ low, high }, format) => (high - low > 0 ? `${format(low)} to ${format(high)}` : "exactly");

export function chip(policy, name) {
  return element("span", { class: `chip ${kindOfModel(policy, name)}` }, named(name));
}

export function drawTop(policy, overview) {
  const created = Date.parse(policy.about.made_at || "") / 1000;
  const age = isFinite(created) ? ` · created ${ago(Math.max(Date.now() / 1000 - created, 0))} ago` : "";
  $("policy-line").textContent = `policy ${policy.version}${age} · keeps ${exactly(overview.default_target)} of ${strongest(policy)}`;
  $("simulated").hidden = !overview.simulated;
  $("warnings").hidden = overview.warnings.length === 0;
  $("warnings").replaceChildren(...overview.warnings.map((text) => element("li", {}, text)));
  $("upstreams").hidden = overview.upstreams.length === 0;
  $("upstreams").textContent = `Upstreams: ${overview.upstreams.map(upstreamStatus).join(", ")}`;
}

function upstreamStatus({ model, upstream, left_alone, key_refused }) {
  const status = key_refused ? `rejects its key (${key_refused})` : left_alone ? "is failing and receives only probes" : "is available";
  return `${model} at ${upstream} ${status}`;
}

const LEARNT_ROWS = 50; // the newest entries; `/health` lists all

export function drawLearnt(policy, { learnt }) {
  $("learnt-card").hidden = learnt.length === 0;
  const newest = learnt.slice(-LEARNT_ROWS).reverse();
  $("learnt").tBodies[0].replaceChildren(...newest.map((lesson) => element("tr", {},
    element("td", {}, chip(policy, lesson.model)), element("td", {}, lesson.parameter), element("td", {}, lesson.done),
    element("td", { class: "spare" }, lesson.endpoint), element("td", { class: "spare" }, lesson.upstream),
    element("td", {}, `${ago(Math.max((Date.now() - Date.parse(lesson.since)) / 1000, 0))} ago`))));
}

export function headline(policy, { total, window }) {
  const strong = strongest(policy), period = LENGTHS[window];
  if (!total.requests) return `No requests in the last ${period}.`;
  const cheaper = Object.entries(total.models).filter(([name]) => name !== strong && kindOfModel(policy, name) !== "other");
  const share = cheaper.reduce((sum, [, n]) => sum + n, 0) / total.requests;
  const start = `In the last ${period}, ${percent(share)} of ${plural(total.requests, "request")} did not need ${strong}`;
  const { estimate } = total.saved_usd;
  if (!total.compared) return `${start}.`;
  if (estimate < 0) return `${start}. Routing cost ${usd(-estimate)} more than always using it.`;
  return `${start}: ${usd(estimate)} saved, ${percent(estimate / total.always_strong_usd.estimate)} of its cost.`;
}

function tile(name, value, note, ...more) {
  return element("div", { class: "tile" }, element("dt", {}, name), element("dd", { class: "value" }, value),
    element("dd", { class: "note" }, note), ...more);
}

export function drawNow(policy, overview) {
  const { total } = overview, { added, first_byte } = total.milliseconds;
  $("headline").textContent = headline(policy, overview).replaceAll("-", "\u2011"); // prevents line breaks in model names
  const split = Object.entries(total.models).sort(byPlace(policy));
  const mix = split.map(([name, n]) => `${named(name)} ${percent(n / total.requests)}`).join(", ");
  const bar = element("dd", { class: "bar-line" }, shares(split.map(([name, n]) => [kindOfModel(policy, name), n]), `Share of each model: ${mix || "no requests"}`));
  const seconds = Math.min(overview.to_unix, Date.now() / 1000) - overview.from_unix;
  const abandoned = total.outcomes.abandoned || 0;
  const unknown = total.unpriced ? ` · ${plural(total.unpriced, "request")} of unknown price` : "";
  const saved = total.saved_usd;
  $("tiles").replaceChildren(
    tile("Requests", count(total.requests), `${rate(total.requests / seconds)} · ${count(total.input_tokens + total.output_tokens)} tokens`),
    tile(split.length ? `To ${named(split[0][0])}` : "By model", split.length ? percent(split[0][1] / total.requests) : "—", mix || "no requests yet", bar),
    tile("Spent", usd(total.cost_usd), `always ${strongest(policy)}: ${usd(total.always_strong_usd.estimate)} for routed requests${unknown}`),
    tile("Saved", usd(saved.estimate), total.compared ? `${between(saved, usd)}, 95\u00a0% interval` : "nothing to compare yet"),
    tile("Added latency", milliseconds(added.p50), `p95 ${milliseconds(added.p95)} · p99 ${milliseconds(added.p99)}`),
    tile("First byte", milliseconds(first_byte.p50), `p95 ${milliseconds(first_byte.p95)}`),
    tile("Errors", total.requests ? percent(failures(total) / total.requests) : "—", `${count(failures(total))} failed · ${count(abandoned)} canceled by the client`),
  );
}

const rate = (perSecond) => perSecond >= 1 ? `${perSecond.toFixed(1)} per second` : `${(perSecond * 60).toFixed(1)} per minute`;

export function drawTime(policy, overview) {
  const steps = overview.over_time, name = (step) => clock(step.unix, overview.step_seconds);
  const models = overview.models.map((row) => [row.model]).sort(byPlace(policy)).map(([model]) => model);
  const kinds = ["cheap", "middle", "strong", "other"];
  const partsOf = (step) => kinds.map((kind) => [kind, models.filter((m) => kindOfModel(policy, m) === kind).reduce((sum, m) => sum + (step.models[m] || 0), 0)]);
  const mixed = (step) => models.filter((m) => step.models[m]).map((m) => `${named(m)} ${count(step.models[m])}`).join(", ");
  bars($("requests-chart"), { steps, parts: partsOf, name, format: count, label: `Requests over time by model, ${count(overview.total.requests)} in total`,
    tell: (step) => `${name(step)}: ${plural(step.requests, "request")}${step.requests ? ` (${mixed(step)})` : ""}` });
  legend($("models-legend"), models.slice(0, 6).map((model) => [kindOfModel(policy, model), named(model)]));

  lines($("dollars-chart"), { steps, name, format: dollars, label: `Cost over time: ${usd(overview.total.cost_usd)} spent, ${usd(overview.total.always_strong_usd.estimate)} for always strong`,
    series: [
      { kind: "strong", value: (s) => s.always_strong_usd.estimate, low: (s) => s.always_strong_usd.low, high: (s) => s.always_strong_usd.high },
      { kind: "spent", value: (s) => s.cost_usd },
    ],
    tell: (s) => `${name(s)}: ${usd(s.cost_usd)} spent; always ${strongest(policy)} ${usd(s.always_strong_usd.estimate)} (${between(s.always_strong_usd, usd)})` });
  legend($("dollars-legend"), [["spent", "spent"], ["strong", `always ${strongest(policy)}, with 95 % interval`]]);

  lines($("latency-chart"), { steps, name, format: milliseconds, label: "Latency added by the router, median and 95th percentile",
    series: [{ kind: "faint", value: (s) => s.milliseconds.added.p95 }, { kind: "spent", value: (s) => s.milliseconds.added.p50 }],
    tell: (s) => `${name(s)}: median ${milliseconds(s.milliseconds.added.p50)}, p95 ${milliseconds(s.milliseconds.added.p95)}` });
  bars($("errors-chart"), { steps, parts: (s) => [["bad", failures(s)], ["other", s.outcomes.abandoned || 0]], name, format: count, label: `Errors over time, ${count(failures(overview.total))} in total`,
    tell: (s) => `${name(s)}: ${count(failures(s))} failed, ${count(s.outcomes.abandoned || 0)} canceled by the client` });

  $("time-table").tBodies[0].replaceChildren(...steps.filter((s) => s.requests).reverse().map((s) => element("tr", {},
    element("th", { scope: "row" }, name(s)), element("td", { class: "number" }, count(s.requests)), element("td", {}, mixed(s)),
    element("td", { class: "number" }, usd(s.cost_usd)), element("td", { class: "number" }, usd(s.always_strong_usd.estimate)),
    element("td", { class: "number" }, milliseconds(s.milliseconds.added.p95)), element("td", { class: "number" }, count(failures(s))))));
}

function legend(host, entries) {
  const text = JSON.stringify(entries);
  if (host.dataset.shown === text) return;
  host.dataset.shown = text;
  host.replaceChildren(...entries.map(([kind, name]) => element("li", {}, element("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name)));
}

export function drawCurve(policy, overview) {
  const rule = policy.targets.find((target) => target.target >= overview.default_target - 1e-9);
  const { total } = overview, strong = strongest(policy);
  const always = total.always_strong_usd.estimate;
  const live = total.compared && always > 0 ? Math.min(Math.max((always - total.saved_usd.estimate) / always, 0), 1) : null;
  let note = `No threshold is certified for ${exactly(overview.default_target)}: every request goes to ${strong}.`;
  if (rule && rule.quality_per_usd !== null) {
    const { low, estimate, high } = rule.expected_saving;
    const from = policy.about?.transferred_from;
    const basis = from ? `Expected from measurements of ${from.models.join(" and ")}` : `${rule.certified ? "Certified" : "Expected, not certified"} at ${percent(rule.confidence)} confidence on ${count(rule.n)} questions`;
    note = `${basis}: keeping ${exactly(rule.target)} of ${strong}'s quality saves ${percent(estimate)} (${percent(low)} to ${percent(high)}) of its cost on questions like these.`;
  }
  $("curve-note").textContent = note;
  curve($("curve"), { targets: policy.targets, current: rule ? rule.target : overview.default_target, live, percent, exactly,
    label: `Quality kept against cost, for ${policy.targets.length} targets. ${note}` });
}

const typeRows = new Map();

export function drawTypes(policy, overview, { sort, all }) {
  const routed = overview.types.reduce((sum, row) => sum + row.requests, 0) || 1;
  const calibrated = overview.mix.calibrated, of = Object.values(calibrated).reduce((sum, n) => sum + n, 0) || 1;
  const live = Object.values(overview.mix.requests).reduce((sum, n) => sum + n, 0);
  const measured = overview.mix.requests.measured;
  const rows = overview.types.map((row) => {
    // the share that the type would have if the measured types were distributed as in the calibration
    const then = row.question_type in calibrated ? (calibrated[row.question_type] / of) * (measured / routed) : null;
    return { ...row, share: row.requests / routed, then, drift: then === null ? 0 : row.requests / routed - then };
  });
  const orders = { cost: (a, b) => b.cost_usd - a.cost_usd, requests: (a, b) => b.requests - a.requests, drift: (a, b) => Math.abs(b.drift) - Math.abs(a.drift) };
  rows.sort(orders[sort] || orders.cost);
  const most = Math.max(0.02, ...rows.map((row) => Math.max(row.share, row.then || 0)));
  const shown = all ? rows : rows.slice(0, 10);
  const body = $("types").tBodies[0];
  const wanted = shown.map((row) => {
    const kept = typeRows.get(row.question_type) || element("tr");
    typeRows.set(row.question_type, kept);
    kept.replaceChildren(...typeCells(policy, row, most));
    return kept;
  });
  if (!wanted.length) wanted.push(element("tr", {}, element("td", { colspan: "7", class: "empty" }, "No routed requests in the selected period.")));
  body.replaceChildren(...wanted);
  $("all-types").hidden = rows.length <= 10;
  $("all-types").textContent = all ? "Show the first 10" : `Show all ${rows.length} types`;
  $("mix").textContent = mixInWords(overview.mix, live);
  const worth = promiseInWords(policy, overview);
  $("mix-promise").textContent = worth.text;
  $("mix-promise").className = worth.holds === "no" ? "muted broken" : "muted";
}

function typeCells(policy, row, most) {
  const { evidence } = row, names = policy.models.map((model) => model.name);
  const known = names.filter((name) => evidence.quality[name]);
  const rows = known.map((name) => { const q = evidence.quality[name]; return [kindOfModel(policy, name), q.low, q.estimate, q.high]; });
  const inWords = known.map((name) => { const q = evidence.quality[name]; return `${name} ${percent(q.estimate)} (${percent(q.low)} to ${percent(q.high)})`; }).join("; ");
  const went = Object.entries(row.models).sort(byPlace(policy));
  const wentTo = went.map(([name, n]) => `${named(name)} ${percent(n / row.requests)}`).join(", ");
  const drift = row.then === null ? "not part of the calibration" : `${percent(row.then, 1)} with the calibration's mix`;
  const picture = rows.length ? intervals(rows, inWords) : null;
  return [
    element("th", { scope: "row" }, row.question_type, element("small", { class: `evidence ${evidence.kind}` }, evidence.n ? `${kindOf(evidence.kind)}, n = ${evidence.n}` : kindOf(evidence.kind))),
    element("td", { class: "number" }, count(row.requests)),
    element("td", {}, shareWithTick(row.share, row.then, most, `${percent(row.share, 1)} of requests, ${drift}`), element("small", {}, percent(row.share, 1))),
    element("td", { title: wentTo }, shares(went.map(([name, n]) => [kindOfModel(policy, name), n]), wentTo), element("small", {}, went.length ? `${percent((row.models[strongest(policy)] || 0) / row.requests)} strong` : "")),
    element("td", { class: "number" }, usd(row.cost_usd)),
    element("td", { class: "number", title: between(row.saved_usd, usd) }, row.compared ? usd(row.saved_usd.estimate) : "—"),
    element("td", { title: inWords }, picture || element("span", { class: "muted" }, "none")),
  ];
}

function mixInWords(mix, live) {
  if (!live) return "Compares traffic with the calibration once there are requests.";
  const share = (kind) => percent(mix.requests[kind] / live);
  const covered = `${share("measured")} of requests have a type with measured results, ${share("published")} with published results only, ${mix.requests.transferred ? `${share("transferred")} with results of other models, ` : ""}${share("none")} without results.`;
  if (mix.distance === null) return covered;
  const verdict = mix.distance < 0.2 ? "similar to the calibration" : mix.distance < 0.5 ? "partly different from the calibration, so savings may differ" : "very different from the calibration: recalibrate on your own questions";
  return `${covered} The mix of measured types is ${verdict} (${percent(mix.distance)} of requests would have to change type).`;
}

function promiseInWords(policy, { mix, default_target }) {
  if (policy.about?.transferred_from) return { text: "These models were not measured. Their expected quality comes from measurements of other models.", holds: "" };
  if (!mix.quality_kept) return { text: "", holds: "" };
  const { low, estimate, high, holds } = mix.quality_kept, strong = strongest(policy);
  const kept = `With the quality measured for each type, this mix keeps ${percent(estimate, 1)} (${percent(low, 1)} to ${percent(high, 1)}) of ${strong}'s quality`;
  const verdict = { shown: `: the target of ${exactly(default_target)} is met.`, expected: `: the target of ${exactly(default_target)} is expected to be met, but not proven for this mix.`,
    no: `, less than the target of ${exactly(default_target)}: recalibrate on your own questions, or use a stricter target.` };
  return { text: kept + verdict[holds], holds };
}

function verifiedInWords(verified) {
  const sum = (rows, name) => rows.reduce((all, row) => all + row[name], 0);
  const checked = verified.filter((row) => row.verification !== "unchecked"), failed = checked.filter((row) => row.finding);
  if (!checked.length) return "";
  const escalated = failed.filter((row) => row.verification === "escalated"), kinds = new Map();
  for (const row of failed) kinds.set(row.finding, (kinds.get(row.finding) || 0) + row.requests);
  const causes = [...kinds].map(([finding, n]) => `${findingOf(finding)} ${count(n)}`).join(", ");
  const start = `Verified in the selected period: ${plural(sum(checked, "requests"), "answer")}`;
  if (!failed.length) return `${start}; all passed.`;
  return `${start}; ${count(sum(failed, "requests"))} failed (${causes}). A stronger model answered ${count(sum(escalated, "requests"))} of them, for ${usd(sum(escalated, "escalation_usd"))}.`;
}

export function drawReasons({ reasons, verified }) {
  $("verified").textContent = verifiedInWords(verified);
  const all = reasons.reduce((sum, row) => sum + row.requests, 0);
  const listed = reasons.map((row) => `${reasonOf(row.reason)[0].toLowerCase()} ${percent(row.requests / all)}`).join(" · ");
  $("reasons").textContent = listed ? `Reasons in the selected period: ${listed}` : "";
}

const recentRows = new Map();

export function drawRecent(policy, requests) {
  const body = $("recent").tBodies[0];
  const wanted = new Set(requests.map((request) => request.span_id));
  let fresh = 0;
  for (const [id, rows] of recentRows) {
    const busy = rows.some((row) => row.contains(document.activeElement)) || !rows[1].hidden;
    if (!wanted.has(id) && !busy) { rows.forEach((row) => row.remove()); recentRows.delete(id); }
  }
  for (const request of [...requests].reverse()) {
    if (recentRows.has(request.span_id)) continue;
    const rows = decisionRows(policy, request);
    recentRows.set(request.span_id, rows);
    body.prepend(...rows);
    fresh += 1;
  }
  $("recent-empty").hidden = recentRows.size > 0;
  $("recent").hidden = recentRows.size === 0;
  if (!recentRows.size) $("recent-empty").replaceChildren("No requests yet. Point an OpenAI client to ",
    element("code", {}, `${location.origin}/v1`), " and request the model ", element("code", {}, "auto"), ".");
  return fresh;
}

function decisionRows(policy, request) {
  const id = `why-${request.span_id}`, times = request.milliseconds;
  const [reason] = request.reason || request.status < 400 ? reasonOf(request.reason) : ["Refused"];
  const button = element("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": id }, reason);
  const details = element("tr", { id, class: "why", hidden: true });
  button.addEventListener("click", () => {
    const opened = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(opened));
    details.hidden = !opened;
    if (opened && !details.firstChild) details.append(element("td", { colspan: "8" }, explained(policy, request, { ...request, evidence: policy.evidence[request.question_type] })));
  });
  const fine = request.outcome === "answered" && request.status < 400;
  const row = element("tr", { class: "fresh" },
    element("td", {}, element("time", { datetime: new Date(request.unix * 1000).toISOString() }, clock(request.unix))),
    element("td", {}, chip(policy, request.model)), element("td", {}, button), element("td", { class: "spare" }, request.question_type || "—"),
    element("td", { class: "number" }, fine ? usd(request.cost_usd) : "—"), element("td", { class: "number spare" }, milliseconds(times.first_byte)),
    element("td", { class: "number spare" }, milliseconds(times.whole)),
    element("td", {}, element("span", { class: fine ? "ok" : "bad-text" }, fine ? String(request.status) : `${request.status} ${request.outcome}`)));
  return [row, details];
}

const shortened = (text) => { const shown = text.replace(/\s+/g, " ").trim(); return shown.length > 200 ? `${shown.slice(0, 199)}…` : shown; };
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(2)}`;
const weights = (words, scale) => Object.entries(words || {}).map(([word, weight]) => `${word}\u00a0${signed(weight * scale)}`).join(", ");
const others = (policy, decision) => Object.entries(decision.likely_types || {}).filter(([name]) => name !== decision.question_type)
  .map(([name, p]) => `${name}\u00a0${percent(p)} (${kindOf(policy.evidence[name]?.kind || "none")})`).join(", ");

// The guarantee of a target; records do not contain it.
const promised = (promise) => promise === "none" ? ", certified only for the strong model" : promise ? `, ${promise}` : "";

// Explain a decision of a record or of POST /router/decision.
export function explained(policy, request, decision) {
  const [reason, why] = reasonOf(decision.reason);
  const out = element("div", { class: "explained" },
    element("p", { class: "verdict" }, chip(policy, decision.model), " ", element("strong", {}, reason), " ", why));
  const { asked } = decision;  // only POST /router/decision returns it, with the question's text
  const read = asked ? readAs(asked, decision.question_type, asked.question.length) : readAs(request.read_as, decision.question_type, request.read_as?.question_characters);
  if (read) out.append(element("p", { class: "read-as" }, read));
  const verified = verifiedAs(request);
  if (verified) out.append(element("p", { class: "read-as" }, verified));
  const names = policy.models.map((model) => model.name).filter((name) => name in decision.quality);
  if (names.length) {
    const known = (decision.evidence || {}).quality || {};
    const body = names.map((name) => {
      const q = known[name], kind = kindOfModel(policy, name);
      return element("tr", {}, element("th", { scope: "row" }, name),
        element("td", {}, intervals([[kind, q ? q.low : null, decision.quality[name], q ? q.high : null]], `expected quality ${percent(decision.quality[name])}`, 120)),
        element("td", { class: "number" }, percent(decision.quality[name])),
        element("td", { class: "number" }, q ? `${percent(q.low)} to ${percent(q.high)}` : "—"),
        element("td", { class: "number" }, usd(decision.expected_cost_usd[name])));
    });
    const head = ["Model", "", "Expected quality", "Measured for the type, 95 %", "Expected cost"].map((text, at) => element("th", { scope: "col", class: at > 1 ? "number" : "" }, text));
    out.append(element("div", { class: "scroll" }, element("table", { class: "models" }, element("caption", { class: "hidden" }, "Each model on this request"), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body))));
  }
  const evidence = decision.evidence;
  const facts = [
    ["Question", asked ? shortened(asked.question) : ""], ["Cache", asked?.cached_model ? `${asked.cached_model} answered the earlier turns and has them cached` : ""],
    ["Type", decision.question_type], ["Other likely types", others(policy, decision)], ["Target", decision.target === null || decision.target === undefined ? "" : `keep ${exactly(decision.target)}${promised(decision.promise)}`],
    ["Adapted for the model", typeof decision.adapted === "string" ? decision.adapted : Object.entries(decision.adapted || {}).map(([name, change]) => `${name}: ${change}`).join(" · ")],
    ["Gap", decision.gap === null || decision.gap === undefined ? "" : `${decision.gap >= 0 ? "+" : "−"}${Math.abs(decision.gap * 100).toFixed(1)} points of quality for the strong model`],
    ["Novelty", decision.novelty === null || decision.novelty === undefined ? "" : `${percent(decision.novelty)}; above ${percent(policy.novelty_limit)} the strong model answers`],
    ["Evidence", evidence ? `${kindOf(evidence.kind)}${evidence.n ? `, ${count(evidence.n)} outcomes` : ""}${evidence.source ? `: ${evidence.source}` : ""}` : ""],
    ["Words for the type", weights(decision.words?.question_type, 1)], ["Words for the gap", weights(decision.words?.gap, 100)],
    ["Requested model", request.asked_model], ["Policy", decision.policy_version], ["Added latency", request.milliseconds ? milliseconds(request.milliseconds.added) : ""],
    ["Tokens", request.usage ? `${count(request.usage.input_tokens || 0)} in, ${count(request.usage.output_tokens || 0)} out` : ""], ["Key", request.key], ["Team", request.team], ["Trace", request.trace_id],
  ];
  out.append(element("dl", { class: "facts" }, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
  return out;
}
