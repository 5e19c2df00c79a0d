// Formats numbers and reasons as text. Only `element` touches the page.

export const REASONS = {
  cheap_is_enough: ["Cheap is enough", "A cheaper model is expected to be good enough: at this target, the strong model's additional quality is not worth its price."],
  strong_is_better: ["Strong is better", "The strong model is expected to be better by enough to be worth its price."],
  no_evidence: ["No evidence", "There are no measured results for this question type, so the strong model answers."],
  uncertain_type: ["Uncertain type", "The question type is uncertain, or possibly one without measured results, so the strong model answers."],
  novel: ["Novel", "The request is unlike the calibration data, so the strong model answers."],
  drifted: ["Drifted", "The quality of cheaper models on this question type fell below its calibrated level, so the strong model answers until recalibration."],
  not_certified: ["Not certified", "No threshold is certified for this target, so the strong model answers."],
  context_window: ["Context window", "Only this model has a context window large enough for the request."],
  modality: ["Modality", "Only this model accepts the attached content."],
  tools: ["Tools", "Only this model supports the tools of the request."],
  parameters: ["Parameters", "Only this model supports the parameters of the request."],
  forced: ["Forced", "The client named the model."],
  continued: ["Continued", "The request continues an earlier response of this model."],
  budget: ["Budget", "The budget of the key is nearly spent, and its lower target selects this model."],
  passed_through: ["Passed through", "The client requested a model that is not routed."],
  fallback: ["Fallback", "The selected model could not answer, so another model did."],
  escalated: ["Escalated", "The answer of the selected model failed verification, so a stronger model answered."],
  successor: ["Successor", "The selected model is retired, and its successor answered. The successor's quality was not measured."],
};

const FINDINGS = {
  empty: "empty", refused: "refused", length: "cut off at the length limit", content_filter: "filtered", failed: "an error",
  interrupted: "interrupted", not_json: "not JSON", schema: "does not match the schema", unknown_tool: "call of an unknown tool",
  tool_arguments: "invalid tool arguments", no_tool_call: "no tool call", python_syntax: "invalid Python", json_syntax: "invalid JSON in a code block",
};
export const findingOf = (finding) => FINDINGS[finding] || finding.replaceAll("_", " ");

// The result of verification as a sentence; empty if verification was off.
export function verifiedAs({ verification, finding, escalated_from }) {
  const failure = finding ? findingOf(finding) : "";
  return {
    verified: "The answer passed verification.",
    escalated: `The answer of ${escalated_from} failed verification (${failure}), so this model answered instead.`,
    kept: `The answer failed verification (${failure}), and no stronger model could answer.`,
    late: `The answer failed verification (${failure}) after its beginning had been sent to the client.`,
    unchecked: "The answer could not be verified.",
  }[verification] || "";
}

const KINDS = { measured: "measured", published: "published", transferred: "transferred", none: "no evidence" };
export const kindOf = (kind) => KINDS[kind] || kind;
export const reasonOf = (reason) => REASONS[reason] || [reason ? reason.replaceAll("_", " ") : "—", ""];

// How a request was classified, as a sentence; empty for records of earlier versions.
export function readAs(read, type, characters) {
  if (!read || read.turn === undefined) return "";
  const around = [
    read.material_characters ? `${plural(read.material_characters, "character")} of material` : "",
    read.examples ? plural(read.examples, "worked example") : "",
  ].filter(Boolean).join(" and ");
  const question = `a question of ${plural(characters, "character")}${around ? ` with ${around}` : ""}`;
  const turn = read.turn > 1 ? `, asked in turn ${count(read.turn)} of its conversation` : "";
  const tools = read.tools_offered ? ` ${count(read.tools_matching)} of ${plural(read.tools_offered, "tool")} ${read.tools_matching === 1 ? "matches" : "match"} it.` : "";
  return `Classified as ${type || "no known type"}: ${question}${turn}.${tools}`;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const named = (model) => model || "no model";
export const count = (n) => (n >= 100000 ? short.format(n) : whole.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function usd(x) {
  if (x === null || x === undefined) return "unknown";
  const size = Math.abs(x), sign = x < 0 ? "−" : "";
  if (size === 0) return "$0";
  if (size >= 100000) return `${sign}$${short.format(size)}`;
  if (size >= 1) return `${sign}$${size.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const digits = size >= 0.1 ? 3 : Math.min(8, 1 - Math.floor(Math.log10(size)));
  return `${sign}$${size.toFixed(digits)}`;
}

// For an axis: without trailing zeros.
export const dollars = (x) => usd(x).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

export function percent(x, digits) {
  if (x === null || x === undefined || !isFinite(x)) return "—";
  const size = Math.abs(x * 100);
  const places = digits ?? (size > 0 && size < 1 ? 1 : 0);
  return `${x < 0 ? "−" : ""}${size.toFixed(places)}\u00a0%`;
}

// A target with the digits it needs: 97 %, 98.5 %.
export const exactly = (x) => percent(x, Math.abs(x * 100 - Math.round(x * 100)) > 0.05 ? 1 : 0);

export function milliseconds(x) {
  if (x === null || x === undefined) return "—";
  if (x === 0) return "0 ms";
  if (x < 1) return `${x.toFixed(2)} ms`;
  if (x < 10) return `${x.toFixed(1)} ms`;
  if (x < 1000) return `${x.toFixed(0)} ms`;
  return `${(x / 1000).toFixed(x < 10000 ? 1 : 0)} s`;
}

export function ago(seconds) {
  const steps = [[86400 * 2, 86400, "day"], [3600 * 2, 3600, "hour"], [120, 60, "minute"], [0, 1, "second"]];
  const [, size, name] = steps.find(([from]) => seconds >= from);
  return plural(Math.floor(seconds / size), name);
}

export function clock(unix, step = 1) {
  const date = new Date(unix * 1000);
  if (step >= 86400) return date.toLocaleDateString("en", { day: "numeric", month: "short" });
  if (step >= 21600) return date.toLocaleString("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit" });
  return date.toLocaleTimeString("en-GB", step >= 60 ? { hour: "2-digit", minute: "2-digit" } : {});
}

// Create an element with attributes and children. Text is never parsed as HTML.
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) created.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) created.setAttribute(key, value);
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}
