// The sentinel's results: the share of the strong model's quality for each type with its interval, and evidence of drift.

import { shape } from "./charts.js";
import { ago, count, element, percent, plural } from "./words.js";

const $ = (id) => document.getElementById(id);
const STATES = { ok: ["good", "on target"], drifted: ["bad", "drifted: the strong model answers"], better: ["better", "better than calibrated"] };
const ORDER = { drifted: 0, better: 1, ok: 2 };

export function drawWatched(policy, { sentinel }) {
  $("watched-section").hidden = !sentinel;
  if (!sentinel) return;
  const types = Object.entries(sentinel.types).sort(([, a], [, b]) => ORDER[a.state] - ORDER[b.state] || b.evidence - a.evidence);
  const strong = policy.models.at(-1).name, pairs = types.reduce((sum, [, watched]) => sum + watched.pairs, 0);
  $("watched-note").textContent = `${plural(pairs, "answer")} of cheaper models compared with answers of ${strong}, ${plural(types.length, "type")}, target ${percent(sentinel.target)}. `
    + `Intervals are valid for all checks together. Last check ${ago(Math.max(Date.now() / 1000 - sentinel.made_unix, 0))} ago.`;
  $("watched").replaceChildren(...types.map(([name, watched]) => card(name, watched)));
  const changed = sentinel.signals.filter((signal) => signal.evidence >= 1);
  $("signals").textContent = changed.length
    ? `Changed since the calibration: ${changed.map((signal) => `${signal.name} ${number(signal.value)} (limit ${number(signal.limit)})`).join(" · ")}.`
    : sentinel.signals.length ? `No change detected in ${unjudged(sentinel.signals)}.` : "";
}

const number = (value) => String(Number(value.toPrecision(3)));

function unjudged(signals) {
  const lengths = signals.some((signal) => /^(longer|shorter) /.test(signal.name));
  return [...signals.map((signal) => signal.name).filter((name) => !/^(longer|shorter) /.test(name)), ...(lengths ? ["answer lengths"] : [])].join(", ");
}

function card(name, watched) {
  const [low, estimate, high] = watched.kept, [kind, state] = STATES[watched.state];
  const since = watched.since_request ? `, since request ${count(watched.since_request + 1)} of ${count(watched.requests)}` : "";
  const summary = `keeps ${percent(estimate, 1)} (${percent(low, 1)} to ${percent(high, 1)}), floor ${percent(watched.floor, 1)}, ${plural(watched.pairs, "pair")}${since}`;
  return element("li", { class: `watched is-${watched.state}` },
    element("p", { class: "split" }, element("strong", {}, name), element("span", { class: `state ${kind}` }, state)),
    band(watched, `${name} ${summary}`), element("p", { class: "muted" }, summary),
    element("p", { class: "muted evidence-line" }, `evidence of drift: ${percent(Math.min(watched.evidence, 1))} of the threshold`));
}

// The interval over judged pairs, and below it the evidence of drift with its threshold.
function band({ history, floor }, label) {
  const width = 300, height = 130, left = 36, right = width - 6, split = 88, bottom = height - 14;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "evolution", role: "img", "aria-label": label });
  const least = Math.max(Math.min(floor - 0.1, ...history.map((look) => look[2])) - 0.1, 0), most = 1.15;
  const pairs = Math.max(...history.map((look) => look[0]), 1);
  const x = (n) => left + (n / pairs) * (right - left);
  const y = (kept) => 6 + ((most - Math.min(Math.max(kept, least), most)) / (most - least)) * (split - 12);
  const e = (evidence) => bottom - Math.min(evidence, 1) * (bottom - split - 4);
  const looks = [[0, least, history[0][2], most, 0], ...history];
  const upper = looks.map(([n, , , high]) => `${x(n)},${y(high)}`), lower = looks.map(([n, low]) => `${x(n)},${y(low)}`).reverse();
  picture.append(
    shape("polygon", { points: [...upper, ...lower].join(" "), class: "band accent" }),
    shape("line", { x1: left, x2: right, y1: y(floor), y2: y(floor), class: "floor" }),
    shape("text", { x: left - 5, y: y(floor) + 4, class: "end" }, percent(floor)),
    shape("polyline", { points: history.map(([n, , estimate]) => `${x(n)},${y(estimate)}`).join(" "), class: "line curve" }),
    ...history.map(([n, low, estimate, high, evidence]) => shape("circle", { cx: x(n), cy: y(estimate), r: history.length > 20 ? 1.5 : 2.5, class: "accent" },
      shape("title", {}, `${plural(n, "pair")}: ${percent(estimate, 1)} (${percent(low, 1)} to ${percent(high, 1)}), evidence ${percent(Math.min(evidence, 1))}`))),
    shape("line", { x1: left, x2: right, y1: e(1), y2: e(1), class: "floor" }),
    shape("text", { x: left - 5, y: e(1) + 4, class: "end" }, "drift"),
    shape("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "rule" }),
    shape("polyline", { points: looks.map(([n, , , , evidence]) => `${x(n)},${e(evidence)}`).join(" "), class: "line against" }),
    shape("text", { x: right, y: height - 2, class: "end" }, plural(history.at(-1)[0], "pair")),
  );
  return picture;
}
