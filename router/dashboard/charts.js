// Small charts in SVG. Each says in words what it shows, and each bar tells its numbers when it is pointed at.

const SVG = "http://www.w3.org/2000/svg";

export function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(width, height, label) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
}

// A round number at or above `most`, and steps to it, of at least `least`: there is no half of a request.
function scale(most, steps, least) {
  if (!(most > 0)) return { top: 1, ticks: [0] };
  const rough = most / steps, size = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(least, [1, 2, 2.5, 5, 10].map((n) => n * size).find((n) => n >= rough * 0.999));
  const top = Math.ceil(most / step - 1e-9) * step;
  return { top, ticks: Array.from({ length: Math.round(top / step) + 1 }, (_, n) => n * step) };
}

const EDGE = { left: 52, right: 8, top: 8, bottom: 22 };

function frame(host, label, most, format, least = 0) {
  const width = Math.max(host.clientWidth, 200), height = Math.max(host.clientHeight, 80);
  const picture = svg(width, height, label);
  const { top, ticks } = scale(most, height < 130 ? 2 : 3, least);
  const y = (value) => height - EDGE.bottom - (value / top) * (height - EDGE.top - EDGE.bottom);
  for (const tick of ticks) {
    picture.append(
      shape("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick), class: "rule" }),
      shape("text", { x: EDGE.left - 6, y: y(tick) + 4, class: "axis end" }, format(tick)),
    );
  }
  return { picture, width, height, y };
}

function timeAxis({ picture, width, height }, steps, name) {
  const inside = width - EDGE.left - EDGE.right, slot = inside / steps.length;
  const every = Math.ceil(steps.length / Math.max(Math.floor(inside / 80), 1));
  for (let at = steps.length - 1; at >= 0; at -= every) {
    const x = EDGE.left + (at + 0.5) * slot;
    if (x > EDGE.left + 14) picture.append(shape("text", { x: Math.min(x, width - 18), y: height - 6, class: "axis mid" }, name(steps[at])));
  }
  return slot;
}

// Bars of several parts, which are counts. `parts(step)` gives [class, value] from the bottom up.
export function bars(host, { steps, parts, name, format, label, tell }) {
  const most = Math.max(0, ...steps.map((step) => parts(step).reduce((sum, [, value]) => sum + value, 0)));
  const drawn = frame(host, label, most, format, 1);
  const slot = timeAxis(drawn, steps, name), { picture, height, y } = drawn;
  steps.forEach((step, at) => {
    let below = 0;
    const x = EDGE.left + at * slot + Math.min(slot * 0.12, 2), wide = Math.max(slot - 2 * Math.min(slot * 0.12, 2), 0.5);
    const bar = shape("g", { class: "bar" }, shape("title", {}, tell(step)));
    bar.append(shape("rect", { x: EDGE.left + at * slot, y: EDGE.top, width: slot, height: height - EDGE.top - EDGE.bottom, class: "hover" }));
    for (const [kind, value] of parts(step)) {
      if (value > 0) bar.append(shape("rect", { x, width: wide, y: y(below + value), height: Math.max(y(below) - y(below + value), 0.7), class: kind }));
      below += value;
    }
    picture.append(bar);
  });
  host.replaceChildren(picture);
}

// Lines over time; a line is {kind, value(step), low?(step), high?(step)}, and a null is a hole.
export function lines(host, { steps, series, name, format, label, tell }) {
  const known = (line) => steps.flatMap((step) => [line.value(step), line.high ? line.high(step) : 0]);
  const most = Math.max(0, ...series.flatMap(known).filter((value) => value !== null));
  const drawn = frame(host, label, most, format);
  const slot = timeAxis(drawn, steps, name), { picture, height, y } = drawn;
  const x = (at) => EDGE.left + (at + 0.5) * slot;
  for (const { kind, value, low, high } of series) {
    if (low) {
      const there = steps.map((step, at) => [at, low(step), high(step)]);
      const path = [...there.map(([at, , up]) => `${x(at)},${y(up)}`), ...there.reverse().map(([at, down]) => `${x(at)},${y(down)}`)];
      picture.append(shape("polygon", { points: path.join(" "), class: `band ${kind}` }));
    }
    let path = "", pen = "M";
    steps.forEach((step, at) => {
      const there = value(step);
      if (there === null) { pen = "M"; return; }
      const alone = pen === "M" && (at + 1 === steps.length || value(steps[at + 1]) === null);
      path += `${pen}${x(at)},${y(there)}${alone ? "h0.01" : ""}`;
      pen = "L";
    });
    picture.append(shape("path", { d: path || "M0,0", class: `line ${kind}` }));
  }
  steps.forEach((step, at) => picture.append(
    shape("g", { class: "bar" }, shape("title", {}, tell(step)),
      shape("rect", { x: EDGE.left + at * slot, y: EDGE.top, width: slot, height: height - EDGE.top - EDGE.bottom, class: "hover" })),
  ));
  host.replaceChildren(picture);
}

// The curve of targets: dollars against always-strong, across; quality kept, upwards.
export function curve(host, { targets, current, live, label, percent, exactly }) {
  const width = Math.max(host.clientWidth, 240), height = Math.max(host.clientHeight, 160);
  const picture = svg(width, height, label), low = Math.min(0.95, ...targets.map((t) => t.target));
  const edge = { left: 52, right: 18, top: 14, bottom: 38 };
  const x = (share) => edge.left + share * (width - edge.left - edge.right);
  const y = (kept) => height - edge.bottom - ((kept - low) / (1 - low)) * (height - edge.top - edge.bottom);
  for (const kept of [low, (1 + low) / 2, 1]) {
    picture.append(shape("line", { x1: x(0), x2: x(1), y1: y(kept), y2: y(kept), class: "rule" }),
      shape("text", { x: edge.left - 6, y: y(kept) + 4, class: "axis end" }, percent(kept)));
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) picture.append(shape("text", { x: x(share), y: height - edge.bottom + 16, class: "axis mid" }, percent(share)));
  picture.append(shape("text", { x: x(0.5), y: height - 4, class: "axis mid" }, "dollars, as a share of always strong"));
  if (live !== null) {
    picture.append(shape("line", { x1: x(live), x2: x(live), y1: edge.top, y2: height - edge.bottom, class: "live" }),
      shape("text", { x: x(live) + (live > 0.7 ? -5 : 5), y: height - edge.bottom - 8, class: live > 0.7 ? "axis end strong-text" : "axis strong-text" }, `live ${percent(live)}`));
  }
  const routed = targets.filter((t) => t.quality_per_usd !== null);
  const at = (t) => [x(1 - t.expected_saving.estimate), y(t.target)];
  picture.append(shape("polyline", { points: [...routed.map((t) => at(t).join(",")), `${x(1)},${y(1)}`].join(" "), class: "line curve" }));
  for (const target of targets) {
    const [cx, cy] = at(target), now = Math.abs(target.target - current) < 1e-9;
    const { low: least, high: most } = target.expected_saving;
    const told = `keeps ${exactly(target.target)}: ${target.quality_per_usd === null ? "not certified, the strong model answers" : `costs ${percent(1 - target.expected_saving.estimate)} (${percent(1 - most)} to ${percent(1 - least)})${target.certified ? "" : ", expected and not certified"}`}`;
    const point = shape("g", { class: `point${target.certified ? "" : " hollow"}${now ? " now" : ""}` }, shape("title", {}, told));
    if (most > least) point.append(shape("line", { x1: x(1 - most), x2: x(1 - least), y1: cy, y2: cy, class: "whisker" }));
    point.append(shape("circle", { cx, cy, r: now ? 7 : 4 }));
    if (now) point.append(cx > 155 // above the curve there is room, unless it begins there
      ? shape("text", { x: cx - 8, y: cy - 12, class: "end strong-text" }, `auto keeps ${exactly(target.target)}`)
      : shape("text", { x: cx + 12, y: cy + 18, class: "strong-text" }, `auto keeps ${exactly(target.target)}`));
    picture.append(point);
  }
  host.replaceChildren(picture);
}

// One bar of several parts beside each other.
export function shares(parts, label) {
  const picture = shape("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "shares", role: "img", "aria-label": label });
  const total = parts.reduce((sum, [, value]) => sum + value, 0) || 1;
  let from = 0;
  for (const [kind, value] of parts) {
    const wide = (value / total) * 100;
    picture.append(shape("rect", { x: from, y: 0, width: wide, height: 8, class: kind }));
    from += wide;
  }
  return picture;
}

// A share now, and a tick where it was at calibration.
export function shareWithTick(now, then, most, label) {
  const picture = shape("svg", { viewBox: "0 0 120 16", width: 120, height: 16, role: "img", "aria-label": label });
  const x = (share) => (share / most) * 118;
  picture.append(shape("rect", { x: 0, y: 4, width: 118, height: 8, rx: 2, class: "track" }),
    shape("rect", { x: 0, y: 4, width: Math.max(x(now), now > 0 ? 1.5 : 0), height: 8, rx: 2, class: "accent" }));
  if (then !== null) picture.append(shape("rect", { x: Math.max(x(then) - 1, 0), y: 0, width: 2.5, height: 16, class: "tick" }));
  return picture;
}

// Intervals under each other on a scale from 0 to 1; `rows` are [class, low, estimate, high].
export function intervals(rows, label, width = 150) {
  const height = rows.length * 9 + 5;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  const x = (value) => 4 + value * (width - 8);
  for (const value of [0, 0.5, 1]) picture.append(shape("line", { x1: x(value), x2: x(value), y1: 0, y2: height, class: "rule" }));
  rows.forEach(([kind, low, estimate, high], at) => {
    const y = 7 + at * 9;
    if (low !== null) picture.append(shape("line", { x1: x(low), x2: x(high), y1: y, y2: y, class: `interval ${kind}` }));
    if (estimate !== null) picture.append(shape("circle", { cx: x(estimate), cy: y, r: 3.6, class: kind }));
  });
  return picture;
}
