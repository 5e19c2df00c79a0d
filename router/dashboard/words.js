// Numbers and reasons in words. Nothing here touches the page but `element`.

export const REASONS = {
  cheap_is_enough: ["Cheap is enough", "A cheaper model than the strongest is expected to be good enough here: what the strongest would add is not worth its price at this target."],
  strong_is_better: ["Strong is better", "The strongest model is expected to be enough better on this request to be worth its price."],
  no_evidence: ["No evidence", "Nothing is known of this type of question, so the strong model answers."],
  uncertain_type: ["Uncertain type", "The request is of no type for sure, or maybe of one that nothing is known of, so the strong model answers."],
  novel: ["Novel", "The request is unlike all that was calibrated, so the strong model answers."],
  drifted: ["Drifted", "This type of question was shown to keep less than it was trusted with, so the strong model answers until it is recalibrated."],
  not_certified: ["Not certified", "No threshold was shown to keep this target, so the strong model answers."],
  context_window: ["Context window", "Only this model can hold the whole request."],
  modality: ["Modality", "Only this model can read what is attached."],
  tools: ["Tools", "Only this model can call the tools that are offered."],
  parameters: ["Parameters", "Only this model takes the parameters of the request."],
  forced: ["Forced", "The client named the model."],
  continued: ["Continued", "It goes on with what an answer of this model began."],
  budget: ["Budget", "The key's budget is nearly spent, and its lower target takes this model."],
  passed_through: ["Passed through", "The client asked for a name that is not routed."],
  fallback: ["Fallback", "The model that was decided on could not answer, so another one did."],
  escalated: ["Escalated", "The answer of the model that was decided on did not hold when it was looked at, so a stronger one was asked."],
  successor: ["Successor", "The model that was decided on is gone, and the one that follows it answered. Nothing was measured of it."],
};

const FINDINGS = {
  empty: "empty", refused: "refused", length: "cut off at the length", content_filter: "filtered", failed: "an error",
  interrupted: "interrupted", not_json: "no JSON", schema: "not as the schema asks", unknown_tool: "call of an unknown tool",
  tool_arguments: "wrong tool arguments", no_tool_call: "no tool call", python_syntax: "Python that does not parse", json_syntax: "JSON in a fence that does not parse",
};
export const findingOf = (finding) => FINDINGS[finding] || finding.replaceAll("_", " ");

// What verification did with an answer; empty where it was not asked for.
export function verifiedAs({ verification, finding, escalated_from }) {
  const found = finding ? findingOf(finding) : "";
  return {
    verified: "The answer was verified by its form.",
    escalated: `The answer of ${escalated_from} did not hold (${found}), so this model answered in its place.`,
    kept: `The answer did not hold (${found}), and no stronger model could answer in its place.`,
    late: `The answer did not hold (${found}), which was found after its beginning was passed on.`,
    unchecked: "The answer was to be verified, and could not be checked.",
  }[verification] || "";
}

const KINDS = { measured: "measured", published: "published", transferred: "transferred", none: "nothing known" };
export const kindOf = (kind) => KINDS[kind] || kind;
export const reasonOf = (reason) => REASONS[reason] || [reason ? reason.replaceAll("_", " ") : "—", ""];

// What a request was read as: a sentence of numbers, empty where a record is older than they are.
export function readAs(read, type, characters) {
  if (!read || read.turn === undefined) return "";
  const around = [
    read.material_characters ? `${plural(read.material_characters, "character")} of material` : "",
    read.examples ? plural(read.examples, "worked example") : "",
  ].filter(Boolean).join(" and ");
  const question = `a question of ${plural(characters, "character")}${around ? ` with ${around}` : ""}`;
  const turn = read.turn > 1 ? `, asked in turn ${count(read.turn)} of its conversation` : "";
  const tools = read.tools_offered ? ` ${count(read.tools_matching)} of ${plural(read.tools_offered, "tool")} on offer ${read.tools_matching === 1 ? "fits" : "fit"} it.` : "";
  return `Read as ${type || "no known type"}: ${question}${turn}.${tools}`;
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

// On an axis, where 0.200 is 0.2.
export const dollars = (x) => usd(x).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

export function percent(x, digits) {
  if (x === null || x === undefined || !isFinite(x)) return "—";
  const size = Math.abs(x * 100);
  const places = digits ?? (size > 0 && size < 1 ? 1 : 0);
  return `${x < 0 ? "−" : ""}${size.toFixed(places)}\u00a0%`;
}

// A target as a person would say it: 97 %, 98.5 %.
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

// An element with attributes and children; text is only ever set as text.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
